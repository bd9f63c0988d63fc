// Small fp32 matrix products held in registers. As in motley/kernels/cpu/simd.h everything lies in an
// anonymous namespace: each family's file compiles its own copy with its own instructions.
#pragma once

#include "motley/kernels/cpu/simd.h"

namespace motley {
namespace {

// The number of rows of a product must be a multiple of this.
constexpr int64_t kRowUnit = 12;

// Row i, column k of the left factor is data[i * row + k * column].
struct LeftFactor {
  const float* data;
  int64_t row, column;
};

template <int W>
struct Tiles {
  using S = kernels::Simd<W>;
  using F = typename S::F;
  // AVX-512 has 32 registers, the others 16: 24 or 12 of them hold sums.
  static constexpr int kWide = W == 16 ? 4 : 2;
  template <int V>
  static constexpr int kRows = W == 16 ? (V == 4 ? 6 : 12) : 6;

  // c [R, V * W] (+)= a [R, depth] b [depth, V * W]
  template <int R, int V>
  static void tile(int64_t depth, const LeftFactor& a, const float* b, int64_t b_stride, float* c,
                   int64_t c_stride, bool add) {
    F sums[R][V];
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) sums[i][j] = add ? S::load(c + i * c_stride + j * W) : F{};
    }
    for (int64_t k = 0; k < depth; ++k) {
      F right[V];
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) right[j] = S::load(b + k * b_stride + j * W);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const F left = S::set(a.data[i * a.row + k * a.column]);
#pragma GCC unroll 4
        for (int j = 0; j < V; ++j) sums[i][j] += left * right[j];
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) S::store(c + i * c_stride + j * W, sums[i][j]);
    }
  }

  template <int V>
  static void columns(int64_t rows, int64_t depth, const LeftFactor& a, const float* b, int64_t b_stride,
                      float* c, int64_t c_stride, bool add) {
    constexpr int R = kRows<V>;
    for (int64_t i = 0; i < rows; i += R) {
      tile<R, V>(depth, {a.data + i * a.row, a.row, a.column}, b, b_stride, c + i * c_stride, c_stride, add);
    }
  }

  // c [rows, width] (+)= a [rows, depth] b [depth, width]; rows a multiple of kRowUnit, width of W.
  static void multiply(int64_t rows, int64_t width, int64_t depth, const LeftFactor& a, const float* b,
                       int64_t b_stride, float* c, int64_t c_stride, bool add) {
    int64_t n = 0;
    for (; n + kWide * W <= width; n += kWide * W) {
      columns<kWide>(rows, depth, a, b + n, b_stride, c + n, c_stride, add);
    }
    if constexpr (kWide == 4) {
      for (; n + 2 * W <= width; n += 2 * W)
        columns<2>(rows, depth, a, b + n, b_stride, c + n, c_stride, add);
    }
    for (; n < width; n += W) columns<1>(rows, depth, a, b + n, b_stride, c + n, c_stride, add);
  }
};

}  // namespace
}  // namespace motley
