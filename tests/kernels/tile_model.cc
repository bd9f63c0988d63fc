#include "tests/kernels/tile_model.h"

#include <cstring>
#include <stdexcept>

#include "motley/base/concat.h"
#include "motley/kernels/cpu/portable.h"
#include "motley/kernels/cpu/tile_product.h"

namespace motley::kernels::testing {
namespace {

// What the processor holds: eight registers of up to 16 rows of 64 bytes. Rows past the configured ones
// are neither read nor written, and every use of an unconfigured register is an error, as there.
struct Registers {
  int rows[8] = {};
  uint8_t data[8][16][64];
};
thread_local Registers registers;

struct ModelTiles {
  static constexpr int kWidth = 4;

  static void check(int r) {
    if (registers.rows[r] == 0) throw std::logic_error(concat("tile register ", r, " is not configured"));
  }
  static void configure(int upper, int lower) {
    const int rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
    std::memcpy(registers.rows, rows, sizeof rows);
    std::memset(registers.data, 0, sizeof registers.data);
  }
  static void release() { std::memset(registers.rows, 0, sizeof registers.rows); }
  template <int R>
  static void zero() {
    check(R);
    std::memset(registers.data[R], 0, sizeof registers.data[R]);
  }
  template <int R>
  static void load(const void* from, int64_t stride) {
    check(R);
    std::memset(registers.data[R], 0, sizeof registers.data[R]);
    for (int i = 0; i < registers.rows[R]; ++i) {
      std::memcpy(registers.data[R][i], static_cast<const std::byte*>(from) + i * stride, 64);
    }
  }
  template <int R>
  static void store(void* to, int64_t stride) {
    check(R);
    for (int i = 0; i < registers.rows[R]; ++i) {
      std::memcpy(static_cast<std::byte*>(to) + i * stride, registers.data[R][i], 64);
    }
  }
  static float value(const uint8_t* bf16) {
    uint16_t bits;
    std::memcpy(&bits, bf16, 2);
    return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
  }
  // C[m][n] += sum over pairs k of A[m][2k] B[k][2n] + A[m][2k + 1] B[k][2n + 1].
  template <int C, int A, int B>
  static void multiply_add() {
    check(C);
    check(A);
    check(B);
    for (int m = 0; m < registers.rows[C]; ++m) {
      for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < 16; ++n) {
          float sum;
          std::memcpy(&sum, registers.data[C][m] + 4 * n, 4);
          for (int i = 0; i < 2; ++i) {
            sum += value(registers.data[A][m] + 4 * k + 2 * i) * value(registers.data[B][k] + 4 * n + 2 * i);
          }
          std::memcpy(registers.data[C][m] + 4 * n, &sum, 4);
        }
      }
    }
  }
};

}  // namespace

const Family& tile_model() {
  using Product = TileProduct<ModelTiles>;
  static const CpuKernels table = [] {
    CpuKernels made = portable_kernels();
    made.name = "tile_model";
    made.panel_of_bf16 = DType::kBFloat16;
    made.tile_bf16 = Product::run;
    made.tile_rows_bf16 = Product::kMostRows;
    made.block_panels_bf16 = kMaxBlockPanels;
    made.block_columns_bf16 = 32;
    return made;
  }();
  static const Family family{"tile_model", "a model of tile registers", true, &table};
  return family;
}

}  // namespace motley::kernels::testing
