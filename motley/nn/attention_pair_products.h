// Small products of bf16 pairs held in registers: c (+)= a b in fp32. Everything lies in an anonymous
// namespace, see attention_tile.h.
#pragma once

#include <immintrin.h>

#include "motley/kernels/cpu/simd.h"

namespace motley {
namespace {

// Pair j of row i (elements 2 j and 2 j + 1 of what is summed over) is data[i * row + j * column].
struct PairFactor {
  const uint32_t* data;
  int64_t row, column;
};

constexpr int64_t kPairRows = 8;  // rows of a product are a multiple of it

// c [kPairRows, V * 16] (+)= a [kPairRows, 2 * pairs] b [2 * pairs, V * 16]
template <int V>
void pair_tile(int64_t pairs, const PairFactor& a, const uint32_t* b, int64_t b_stride, float* c,
               int64_t c_stride, bool add) {
  __m512 sums[kPairRows][V];
#pragma GCC unroll 8
  for (int i = 0; i < kPairRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
      sums[i][v] = add ? _mm512_loadu_ps(c + i * c_stride + 16 * v) : _mm512_setzero_ps();
  }
  for (int64_t j = 0; j < pairs; ++j) {
    __m512i right[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) right[v] = _mm512_loadu_si512(b + j * b_stride + 16 * v);
#pragma GCC unroll 8
    for (int i = 0; i < kPairRows; ++i) {
      const __m512i left = _mm512_set1_epi32(static_cast<int>(a.data[i * a.row + j * a.column]));
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v)
        sums[i][v] = _mm512_dpbf16_ps(sums[i][v], (__m512bh)left, (__m512bh)right[v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kPairRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(c + i * c_stride + 16 * v, sums[i][v]);
  }
}

// c [rows, width] (+)= a [rows, 2 * pairs] b [pairs, width] of pairs; rows a multiple of kPairRows, width
// of 16.
inline void multiply_pairs(int64_t rows, int64_t width, int64_t pairs, const PairFactor& a, const uint32_t* b,
                           int64_t b_stride, float* c, int64_t c_stride, bool add) {
  for (int64_t i = 0; i < rows; i += kPairRows) {
    const PairFactor block{a.data + i * a.row, a.row, a.column};
    int64_t n = 0;
    for (; n + 32 <= width; n += 32)
      pair_tile<2>(pairs, block, b + n, b_stride, c + i * c_stride + n, c_stride, add);
    if (n < width) pair_tile<1>(pairs, block, b + n, b_stride, c + i * c_stride + n, c_stride, add);
  }
}

}  // namespace
}  // namespace motley
