// AMX (Sapphire Rapids and later): products of bf16 on tile registers; everything else is AVX-512's.
#include "motley/kernels/cpu/avx512_bf16.h"
#include "motley/kernels/cpu/tile_product.h"
#include "motley/kernels/cpu/x86.h"

namespace motley::kernels {
namespace {

// As LDTILECFG reads it.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// GCC's own intrinsics take no template parameters and, in GCC 12, do not say that they touch memory.
struct AmxTiles {
  static constexpr int kWidth = 16;  // floats of the vectors that finish

  // Rows of the sums and of the other operand in the first and second half of a group.
  static void configure(int upper, int lower) {
    TileConfiguration made;
    const int rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
    for (int i = 0; i < 8; ++i) {
      made.rows[i] = static_cast<uint8_t>(rows[i]);
      made.row_bytes[i] = 64;
    }
    asm volatile("ldtilecfg %0" ::"m"(made) : "memory");
  }
  static void release() { asm volatile("tilerelease" ::: "memory"); }
  template <int R>
  static inline __attribute__((always_inline)) void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(R));
  }
  template <int R>
  static inline __attribute__((always_inline)) void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(R) : "memory");
  }
  template <int R>
  static inline __attribute__((always_inline)) void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(R) : "memory");
  }
  template <int C, int A, int B>
  static inline __attribute__((always_inline)) void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
};

}  // namespace

const CpuKernels& amx_kernels() {
  static constexpr CpuKernels table = [] {
    CpuKernels made = avx512_bf16_table<RowOrder::kSideBySide>();
    made.name = "amx";
    made.tile_bf16 = TileProduct<AmxTiles>::run;
    made.tile_rows_bf16 = TileProduct<AmxTiles>::kMostRows;
    made.block_panels_bf16 = 4;
    made.block_columns_bf16 = 32;
    return made;
  }();
  return table;
}

}  // namespace motley::kernels
