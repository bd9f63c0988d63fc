// Packing and unpacking of panels, plainly. Shared by all families (see simd.h); the AVX families replace
// what their shuffles do better.
#pragma once

#include "motley/kernels/cpu/simd.h"
#include "motley/kernels/cpu/table.h"

namespace motley::kernels {
namespace {

struct Packing {
  static float load(DType type, const void* data, int64_t i) {
    if (type == DType::kFloat32) return static_cast<const float*>(data)[i];
    return __builtin_bit_cast(float, static_cast<uint32_t>(static_cast<const uint16_t*>(data)[i]) << 16);
  }

  static void pack_columns(DType type, Rows rows, int num_rows, int64_t first, int64_t depth,
                           DType panel_type, int vectors, void* panel) {
    const int lanes = vectors * kVectorLanes;
    if (panel_type == DType::kFloat32) {
      auto* out = static_cast<float*>(panel);
      for (int64_t k = 0; k < depth; ++k) {
        for (int lane = 0; lane < lanes; ++lane) {
          out[k * lanes + lane] = lane < num_rows ? load(type, rows[lane], first + k) : 0.0f;
        }
      }
      return;
    }
    auto* out = static_cast<uint16_t*>(panel);
    for (int64_t k = 0; k < depth + depth % 2; ++k) {
      for (int lane = 0; lane < lanes; ++lane) {
        const bool inside = lane < num_rows && k < depth;
        out[(k / 2 * lanes + lane) * 2 + k % 2] =
            inside ? static_cast<const uint16_t*>(rows[lane])[first + k] : uint16_t{0};
      }
    }
  }

  static void pack_rows(DType type, Rows rows, int64_t depth, int64_t first, int count, DType panel_type,
                        int vectors, void* panel) {
    const int lanes = vectors * kVectorLanes;
    if (panel_type == DType::kFloat32) {
      auto* out = static_cast<float*>(panel);
      for (int64_t k = 0; k < depth; ++k) {
        for (int lane = 0; lane < count; ++lane) out[k * lanes + lane] = load(type, rows[k], first + lane);
        for (int lane = count; lane < lanes; ++lane) out[k * lanes + lane] = 0.0f;
      }
      return;
    }
    auto* out = static_cast<uint16_t*>(panel);
    for (int64_t k = 0; k < depth + depth % 2; ++k) {
      for (int lane = 0; lane < lanes; ++lane) {
        const bool inside = lane < count && k < depth;
        out[(k / 2 * lanes + lane) * 2 + k % 2] =
            inside ? static_cast<const uint16_t*>(rows[k])[first + lane] : uint16_t{0};
      }
    }
  }

  static void transpose(DType type, Rows rows, int64_t depth, int64_t first, int count, DType out_type,
                        int64_t stride, void* out) {
    for (int64_t k = 0; k < depth; ++k) {
      for (int i = 0; i < count; ++i) {
        if (out_type == DType::kFloat32) {
          static_cast<float*>(out)[i * stride + k] = load(type, rows[k], first + i);
        } else {
          static_cast<uint16_t*>(out)[i * stride + k] = static_cast<const uint16_t*>(rows[k])[first + i];
        }
      }
    }
    if (out_type == DType::kFloat32 || depth % 2 == 0) return;
    for (int i = 0; i < count; ++i) static_cast<uint16_t*>(out)[i * stride + depth] = 0;
  }
};

// Those that round go through vectors of W.
template <int W>
struct TilePacking {
  using S = Simd<W>;

  static void pack_tile(const float* c, int64_t columns, int vectors, DType panel_type, void* panel) {
    const int lanes = vectors * kVectorLanes;
    if (panel_type == DType::kFloat32) {
      __builtin_memcpy(panel, c, static_cast<size_t>(columns * lanes) * 4);
      return;
    }
    auto* out = static_cast<uint16_t*>(panel);
    for (int64_t k = 0; k < columns + columns % 2; ++k) {
      for (int lane = 0; lane < lanes; lane += W) {
        uint16_t rounded[W] = {};
        if (k < columns) S::store(DType::kBFloat16, rounded, 0, S::load(c + k * lanes + lane));
        for (int i = 0; i < W; ++i) out[(k / 2 * lanes + lane + i) * 2 + k % 2] = rounded[i];
      }
    }
  }

  static void store_transposed(const float* c, int columns, int vectors, int num_tokens, DType type,
                               void* const* out, int64_t first) {
    const int lanes = vectors * kVectorLanes;
    for (int token = 0; token < num_tokens; ++token) {
      for (int column = 0; column < columns; column += W) {
        const int n = columns - column < W ? columns - column : W;
        float row[W] = {};
        for (int i = 0; i < n; ++i) row[i] = c[(column + i) * lanes + token];
        S::store_some(type, out[token], first + column, n, S::load(row));
      }
    }
  }
};

}  // namespace
}  // namespace motley::kernels
