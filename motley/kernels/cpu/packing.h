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

  // Sets element (k, lane) to value(k, lane) inside and to zero outside of `depth` x `count`.
  template <class Value>
  static void fill(const Panel& panel, int64_t depth, int count, const Value& value) {
    const int step = panel.type == DType::kFloat32 ? 1 : 2;
    for (int64_t unit = 0; unit * step < depth; ++unit) {
      for (int lane = 0; lane < panel.lanes(); ++lane) {
        std::byte* to = panel.line(unit, lane / kVectorLanes) + lane % kVectorLanes * 4;
        for (int i = 0; i < step; ++i) {
          const int64_t k = unit * step + i;
          value.store(to + 4 / step * i, k, lane, k < depth && lane < count);
        }
      }
    }
  }
  // Elements as they are, or widened where the panel is of floats.
  struct Element {
    DType type, panel_type;
    Rows rows;
    int64_t first;
    bool lane_is_row;
    void store(std::byte* to, int64_t k, int lane, bool inside) const {
      const void* row = inside ? rows[lane_is_row ? lane : k] : nullptr;
      const int64_t at = first + (lane_is_row ? k : lane);
      if (panel_type == DType::kFloat32) {
        const float value = inside ? load(type, row, at) : 0.0f;
        __builtin_memcpy(to, &value, 4);
      } else {
        const uint16_t value = inside ? static_cast<const uint16_t*>(row)[at] : uint16_t{0};
        __builtin_memcpy(to, &value, 2);
      }
    }
  };

  static void pack_columns(DType type, Rows rows, int num_rows, int64_t first, int64_t depth,
                           const Panel& panel) {
    fill(panel, depth, num_rows, Element{type, panel.type, rows, first, true});
  }

  static void pack_rows(DType type, Rows rows, int64_t depth, int64_t first, int count, const Panel& panel) {
    fill(panel, depth, count, Element{type, panel.type, rows, first, false});
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

  static void pack_tile(const float* c, int64_t columns, const Panel& panel) {
    const int lanes = panel.lanes();
    for (int64_t k = 0; k < columns; ++k) {
      for (int lane = 0; lane < lanes; lane += W) {
        const auto value = S::load(c + k * lanes + lane);
        std::byte* to = panel.line(panel.units(k), lane / kVectorLanes) + lane % kVectorLanes * 4;
        if (panel.type == DType::kFloat32) {
          S::store(to, value);
          continue;
        }
        uint16_t rounded[W];
        S::store(DType::kBFloat16, rounded, 0, value);
        for (int i = 0; i < W; ++i) {
          const uint16_t pair[2] = {rounded[i], 0};  // the second of a pair comes with the next column
          if (k % 2 == 0) {
            __builtin_memcpy(to + i * 4, pair, 4);
          } else {
            __builtin_memcpy(to + i * 4 + 2, pair, 2);
          }
        }
      }
    }
  }
};

}  // namespace
}  // namespace motley::kernels
