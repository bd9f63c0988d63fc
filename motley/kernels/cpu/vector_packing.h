// Packing of fp32 panels by squares of W x W floats that are turned in registers, for families without
// shuffles of their own. Panels of bf16 are packed plainly. See simd.h for the anonymous namespace.
#pragma once

#include "motley/kernels/cpu/packing.h"

namespace motley::kernels {
namespace {

template <int W>
struct VectorPacking {
  using S = Simd<W>;
  using F = typename S::F;
  using I = typename S::I;

  // Exchanges the bit B of row and lane numbers.
  template <int B>
  static void exchange(F (&r)[W]) {
    I low, high;
    for (int lane = 0; lane < W; ++lane) {
      low[lane] = lane & B ? W + lane - B : lane;
      high[lane] = lane & B ? W + lane : lane + B;
    }
    for (int i = 0; i < W; ++i) {
      if (i & B) continue;
      const F upper = r[i], lower = r[i + B];
      r[i] = __builtin_shuffle(upper, lower, low);
      r[i + B] = __builtin_shuffle(upper, lower, high);
    }
  }
  // r[i] lane j becomes r[j] lane i.
  static void turn(F (&r)[W]) {
    exchange<1>(r);
    exchange<2>(r);
    if constexpr (W == 8) exchange<4>(r);
  }

  static void pack_columns(DType type, Rows rows, int num_rows, int64_t first, int64_t depth,
                           const Panel& panel) {
    if (panel.type == DType::kBFloat16) {
      return Packing::pack_columns(type, rows, num_rows, first, depth, panel);
    }
    for (int lane = 0; lane < panel.lanes(); lane += W) {
      for (int64_t k = 0; k < depth; k += W) {
        F r[W];
        for (int i = 0; i < W; ++i) {
          r[i] = lane + i < num_rows ? S::load_some(type, rows[lane + i], first + k, depth - k) : F{};
        }
        turn(r);
        const int64_t n = depth - k < W ? depth - k : W;
        for (int i = 0; i < n; ++i) {
          S::store(panel.line(k + i, lane / kVectorLanes) + lane % kVectorLanes * 4, r[i]);
        }
      }
    }
  }

  static void pack_rows(DType type, Rows rows, int64_t depth, int64_t first, int count, const Panel& panel) {
    if (panel.type == DType::kBFloat16) return Packing::pack_rows(type, rows, depth, first, count, panel);
    for (int64_t k = 0; k < depth; ++k) {
      for (int lane = 0; lane < panel.lanes(); lane += W) {
        const F value = lane < count ? S::load_some(type, rows[k], first + lane, count - lane) : F{};
        S::store(panel.line(k, lane / kVectorLanes) + lane % kVectorLanes * 4, value);
      }
    }
  }

  static void transpose(DType type, Rows rows, int64_t depth, int64_t first, int count, DType out_type,
                        int64_t stride, void* out) {
    if (out_type == DType::kBFloat16) {
      return Packing::transpose(type, rows, depth, first, count, out_type, stride, out);
    }
    for (int64_t k = 0; k < depth; k += W) {
      for (int column = 0; column < count; column += W) {
        F r[W];
        for (int i = 0; i < W; ++i) {
          r[i] = k + i < depth ? S::load_some(type, rows[k + i], first + column, count - column) : F{};
        }
        turn(r);
        for (int i = 0; i < W && column + i < count; ++i) {
          S::store_some(DType::kFloat32, out, (column + i) * stride + k, depth - k, r[i]);
        }
      }
    }
  }

  static void store_transposed(const float* c, int columns, int vectors, int num_tokens, DType type,
                               void* const* out, int64_t first) {
    const int lanes = vectors * kVectorLanes;
    for (int token = 0; token < num_tokens; token += W) {
      for (int column = 0; column < columns; column += W) {
        F r[W];
        for (int i = 0; i < W; ++i) {
          r[i] = column + i < columns ? S::load(c + (column + i) * lanes + token) : F{};
        }
        turn(r);
        for (int i = 0; i < W && token + i < num_tokens; ++i) {
          S::store_some(type, out[token + i], first + column, columns - column, r[i]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace motley::kernels
