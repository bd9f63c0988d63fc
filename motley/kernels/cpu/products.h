// Products of floats written on plain vectors. Shared by all families (see simd.h).
#pragma once

#include "motley/kernels/cpu/elementwise.h"
#include "motley/kernels/cpu/table.h"

namespace motley::kernels {
namespace {

// A tile of fp32: M rows by V vectors of W lanes live in registers; wider panels are walked in steps.
template <int W, int V>
struct TileF32 {
  using S = Simd<W>;
  using F = typename S::F;

  template <int M>
  static void block(const float* panel, int lanes, Rows rows, int64_t depth, float* c, bool accumulate) {
    const float* row[M];
    for (int i = 0; i < M; ++i) row[i] = static_cast<const float*>(rows[i]);
    F sum[M][V];
    for (int i = 0; i < M; ++i) {
      for (int v = 0; v < V; ++v) sum[i][v] = accumulate ? S::load(c + i * lanes + v * W) : F{};
    }
    for (int64_t k = 0; k < depth; ++k) {
      F p[V];
      for (int v = 0; v < V; ++v) p[v] = S::load(panel + k * lanes + v * W);
      for (int i = 0; i < M; ++i) {
        const F r = S::set(row[i][k]);
        for (int v = 0; v < V; ++v) sum[i][v] += r * p[v];
      }
    }
    for (int i = 0; i < M; ++i) {
      for (int v = 0; v < V; ++v) S::store(c + i * lanes + v * W, sum[i][v]);
    }
  }

  template <int M>
  static void panel_walk(const float* panel, int lanes, Rows rows, int64_t depth, float* c, bool accumulate) {
    for (int lane = 0; lane < lanes; lane += V * W) {
      block<M>(panel + lane, lanes, rows, depth, c + lane, accumulate);
    }
  }

  static void run(const Tile& tile) {
    using Walk = void (*)(const float*, int, Rows, int64_t, float*, bool);
    static constexpr Walk kWalks[] = {panel_walk<1>, panel_walk<2>, panel_walk<3>,
                                      panel_walk<4>, panel_walk<5>, panel_walk<6>};
    const int lanes = tile.panel.lanes();
    kWalks[tile.num_rows - 1](static_cast<const float*>(tile.panel.data), lanes, tile.rows, tile.depth,
                              tile.c, tile.from_c);
    for (int i = 0; tile.out && i < tile.num_rows; ++i) {
      Elementwise<W>::store(tile.c + i * lanes, tile.count, tile.out_type, tile.out[i], tile.accumulate);
    }
  }
};

// Matrix-vector products: vectors run along the depth, N rows of w at a time share each load of x.
template <int W>
struct DotRows {
  using S = Simd<W>;
  using F = typename S::F;
  static constexpr int kColumns = 4;

  template <int N>
  static void dot(DType type, const void* x, const void* w, int64_t w_stride, int64_t depth, float* out) {
    F sum[N] = {};
    for (int64_t k = 0; k < depth; k += W) {
      const F v = S::load_some(type, x, k, depth - k);
      for (int n = 0; n < N; ++n) sum[n] += v * S::load_some(type, w, n * w_stride + k, depth - k);
    }
    for (int n = 0; n < N; ++n) out[n] = S::sum(sum[n]);
  }

  static void run(DType type, Rows x, int num_rows, const DotProduct& product) {
    const int64_t stride = product.w_stride, depth = product.depth;
    for (int64_t n = 0; n < product.columns; n += kColumns) {
      const void* rows = offset(product.w, type, n * stride);
      for (int t = 0; t < num_rows; ++t) {
        float* to = product.out + t * product.out_stride + n;
        if (n + kColumns <= product.columns) {
          dot<kColumns>(type, x[t], rows, stride, depth, to);
        } else {
          for (int64_t i = 0; i < product.columns - n; ++i) {
            dot<1>(type, x[t], offset(rows, type, i * stride), stride, depth, to + i);
          }
        }
      }
    }
  }
};

}  // namespace
}  // namespace motley::kernels
