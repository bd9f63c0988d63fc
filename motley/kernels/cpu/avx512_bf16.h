// What the families with products of bf16 pairs (vdpbf16ps: Zen 4, Cooper Lake, Sapphire Rapids and later)
// share. Included before anything that rounds, since it says how.
#pragma once

#include <immintrin.h>

#include "motley/kernels/cpu/simd.h"

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

#include "motley/kernels/cpu/avx512_table.h"

namespace motley::kernels {
namespace {

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

template <RowOrder kOrder>
void dot_rows_pairs(DType type, Rows x, int num_rows, const DotProduct& product) {
  if (type == DType::kFloat32) {
    Avx512Dot<MultiplyFloats, kOrder>::run(x, num_rows, product);
  } else {
    Avx512Dot<MultiplyPairs, kOrder>::run(x, num_rows, product);
  }
}

template <RowOrder kOrder>
constexpr CpuKernels avx512_bf16_table() {
  CpuKernels table = avx512_table();
  table.panel_of_bf16 = DType::kBFloat16;
  table.tile_bf16 = Avx512Tile<MultiplyPairs>::run;
  table.dot_rows = dot_rows_pairs<kOrder>;
  return table;
}

}  // namespace
}  // namespace motley::kernels
