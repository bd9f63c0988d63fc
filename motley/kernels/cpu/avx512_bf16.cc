// AVX-512 with products of bf16 pairs (vdpbf16ps: Zen 4, Cooper Lake, Sapphire Rapids and later).
#include <immintrin.h>

#include "motley/kernels/cpu/simd.h"

// Rounds in one instruction; said before anything rounds.
namespace motley::kernels {
namespace {

template <>
struct Rounding<16> {
  static VectorTypes<16>::H to_bf16(VectorTypes<16>::F v) {
    return (VectorTypes<16>::H)_mm512_cvtneps_pbh((__m512)v);
  }
};

}  // namespace
}  // namespace motley::kernels

#include "motley/kernels/cpu/avx512_pack.h"
#include "motley/kernels/cpu/avx512_products.h"
#include "motley/kernels/cpu/elementwise.h"
#include "motley/kernels/cpu/x86.h"

namespace motley::kernels {
namespace {

constexpr int kWidth = 16;

struct MultiplyPairs {
  using Element = uint16_t;
  using Vector = __m512bh;
  static constexpr int kStep = 2;
  static Vector load(const void* from) { return (Vector)_mm512_loadu_si512(from); }
  static Vector load_part(const Element* from, int64_t n) {
    return (Vector)_mm512_maskz_loadu_epi16((uint32_t{1} << n) - 1, from);
  }
  static Vector broadcast(const Element* from) {
    int32_t pair;
    __builtin_memcpy(&pair, from, sizeof pair);
    return (Vector)_mm512_set1_epi32(pair);
  }
  static __m512 multiply_add(__m512 sum, Vector a, Vector b) { return _mm512_dpbf16_ps(sum, b, a); }
};

void dot_rows(DType type, Rows x, int num_rows, const void* w, int64_t w_stride, int64_t columns,
              int64_t depth, float* out, int64_t out_stride) {
  if (type == DType::kFloat32) {
    Avx512Dot<MultiplyFloats>::run(x, num_rows, w, w_stride, columns, depth, out, out_stride);
  } else {
    Avx512Dot<MultiplyPairs>::run(x, num_rows, w, w_stride, columns, depth, out, out_stride);
  }
}

}  // namespace

const CpuKernels& avx512_bf16_kernels() {
  static constexpr CpuKernels table = {
      .name = "avx512_bf16",
      .panel_of_bf16 = DType::kBFloat16,
      .tile_f32 = Avx512Tile<MultiplyFloats>::run,
      .tile_bf16 = Avx512Tile<MultiplyPairs>::run,
      .pack_columns = Avx512Packing::pack_columns,
      .pack_rows = Avx512Packing::pack_rows,
      .transpose = Avx512Packing::transpose,
      .pack_tile = Avx512Tiles::pack_tile,
      .store_transposed = Avx512Tiles::store_transposed,
      .store = Elementwise<kWidth>::store,
      .convert = Elementwise<kWidth>::convert,
      .dot_rows = dot_rows,
      .activate = Elementwise<kWidth>::activate,
      .activate_backward = Elementwise<kWidth>::activate_backward,
      .weighted_sum = Elementwise<kWidth>::weighted_sum,
  };
  return table;
}

}  // namespace motley::kernels
