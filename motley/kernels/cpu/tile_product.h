// Products of bf16 on two-dimensional tile registers (AMX): 16 x 16 sums, 16 rows of 32 elements of one
// operand, 32 x 16 of the other, which is a panel as it lies. Tiles says what the instructions do: the
// processor's own in amx.cc, a plain model of them in tests/kernels. See simd.h for the anonymous namespace.
#pragma once

#include <algorithm>
#include <cstring>

#include "motley/kernels/cpu/elementwise.h"
#include "motley/kernels/cpu/table.h"

namespace motley::kernels {
namespace {

// The rows of a Tile must be equally spaced. Registers: sums 0 to 3 (rows x lanes, 2 x 2), rows 4 and 5,
// panel 6 and 7: four loads for four products is the least that eight registers allow.
template <class Tiles>
struct TileProduct {
  static constexpr int kSide = 16;              // rows, and lanes, of a register of sums
  static constexpr int kStep = 32;              // elements of the depth in one product
  static constexpr int kGroup = 2 * kSide;      // rows, and lanes, that are computed together
  static constexpr int64_t kPanelDepth = 1024;  // 32 lanes of it are 64 KiB
  static constexpr int kMostRows = 128;         // of one call, which is long enough to configure anew

  // The last elements of the depth, filled up with zeros.
  struct Ends {
    alignas(64) uint16_t rows[kGroup][kStep];
    alignas(64) uint16_t panel[kStep / 2][kMaxLanes][2];
  };

  // What the products of one group of rows over one chunk of the depth have in common.
  struct Chunk {
    const std::byte* rows;
    int64_t row_bytes;  // from one row to the next
    const std::byte* panel;
    int64_t panel_bytes;  // from one pair of the depth to the next
    int64_t steps;
    const Ends* ends;  // of this chunk, or null
    float* c;
    int64_t c_bytes;
    bool from_c;
    Rows next;  // lines to fetch meanwhile, as in Tile; null: none
    int64_t ahead, next_step;
    int num_next;
  };

  template <int M, int N>
  static inline __attribute__((always_inline)) void multiply(const std::byte* rows, int64_t row_bytes,
                                                             const std::byte* panel, int64_t panel_bytes) {
    Tiles::template load<6>(panel, panel_bytes);
    Tiles::template load<4>(rows, row_bytes);
    Tiles::template multiply_add<0, 4, 6>();
    if constexpr (N == 2) {
      Tiles::template load<7>(panel + 64, panel_bytes);
      Tiles::template multiply_add<1, 4, 7>();
    }
    if constexpr (M == 2) {
      Tiles::template load<5>(rows + kSide * row_bytes, row_bytes);
      Tiles::template multiply_add<2, 5, 6>();
      if constexpr (N == 2) Tiles::template multiply_add<3, 5, 7>();
    }
  }

  // M x N registers of sums.
  template <int M, int N>
  static void block(const Chunk& chunk, int lane) {
    float* c = chunk.c + lane;
    float* c_low = c + kSide * chunk.c_bytes / 4;
    if (chunk.from_c) {
      Tiles::template load<0>(c, chunk.c_bytes);
      if constexpr (N == 2) Tiles::template load<1>(c + kSide, chunk.c_bytes);
      if constexpr (M == 2) Tiles::template load<2>(c_low, chunk.c_bytes);
      if constexpr (M == 2 && N == 2) Tiles::template load<3>(c_low + kSide, chunk.c_bytes);
    } else {
      Tiles::template zero<0>();
      if constexpr (N == 2) Tiles::template zero<1>();
      if constexpr (M == 2) Tiles::template zero<2>();
      if constexpr (M == 2 && N == 2) Tiles::template zero<3>();
    }
    const std::byte* rows = chunk.rows;
    const std::byte* panel = chunk.panel + lane * 4;
    const int num_next = chunk.next && lane == 0 ? chunk.num_next : 0;
    const Rows next = chunk.next;
    const int64_t row_bytes = chunk.row_bytes, panel_bytes = chunk.panel_bytes;
    const int64_t steps = chunk.steps, next_step = chunk.next_step;
    int64_t ahead = chunk.ahead;
    for (int64_t step = 0; step < steps; ++step) {
      multiply<M, N>(rows, row_bytes, panel, panel_bytes);
      rows += kStep * 2;
      panel += kSide * panel_bytes;
      for (int i = 0; i < num_next; ++i) {
        __builtin_prefetch(static_cast<const std::byte*>(next[i]) + ahead, 0, 2);
      }
      ahead += next_step;
    }
    if (chunk.ends) {
      multiply<M, N>(reinterpret_cast<const std::byte*>(chunk.ends->rows), kStep * 2,
                     reinterpret_cast<const std::byte*>(chunk.ends->panel) + lane * 4, kMaxLanes * 4);
    }
    Tiles::template store<0>(c, chunk.c_bytes);
    if constexpr (N == 2) Tiles::template store<1>(c + kSide, chunk.c_bytes);
    if constexpr (M == 2) Tiles::template store<2>(c_low, chunk.c_bytes);
    if constexpr (M == 2 && N == 2) Tiles::template store<3>(c_low + kSide, chunk.c_bytes);
  }

  static void all_lanes(const Chunk& chunk, int num_rows, int lanes) {
    for (int lane = 0; lane < lanes; lane += kGroup) {
      const bool pair = lanes - lane > kSide;
      if (num_rows > kSide) {
        pair ? block<2, 2>(chunk, lane) : block<2, 1>(chunk, lane);
      } else {
        pair ? block<1, 2>(chunk, lane) : block<1, 1>(chunk, lane);
      }
    }
  }

  static void run(const Tile& tile) {
    const int lanes = tile.vectors * kVectorLanes;
    const auto* rows = static_cast<const std::byte*>(tile.rows[0]);
    const int64_t row_bytes = tile.num_rows > 1 ? static_cast<const std::byte*>(tile.rows[1]) - rows : 0;
    const int64_t left = tile.depth % kStep;
    const int64_t whole = tile.depth - left;
    Ends ends;
    if (left > 0) {
      std::memset(&ends, 0, sizeof ends);
      const auto* from = static_cast<const std::byte*>(tile.panel) + whole * lanes * 2;
      for (int64_t pair = 0; pair < (left + 1) / 2; ++pair) {
        std::memcpy(ends.panel[pair], from + pair * lanes * 4, static_cast<size_t>(lanes) * 4);
      }
    }
    int configured = 0;
    for (int64_t k = 0; k < std::max<int64_t>(whole, 1); k += kPanelDepth) {
      const int64_t depth = std::min(kPanelDepth, whole - k);
      for (int i = 0; i < tile.num_rows; i += kGroup) {
        const int count = std::min(kGroup, tile.num_rows - i);
        if (count != configured) {
          Tiles::configure(std::min(count, kSide), std::max(count - kSide, 1));
          configured = count;
        }
        Chunk chunk{rows + i * row_bytes + k * 2,
                    row_bytes,
                    static_cast<const std::byte*>(tile.panel) + k * lanes * 2,
                    int64_t{lanes} * 4,
                    depth / kStep,
                    nullptr,
                    tile.c + int64_t{i} * lanes,
                    int64_t{lanes} * 4,
                    tile.from_c || k > 0,
                    tile.next_step > 0 ? tile.next + i : nullptr,
                    k / kStep * tile.next_step,
                    tile.next_step,
                    count};
        if (left > 0 && k + depth >= whole) {
          for (int j = 0; j < count; ++j) {
            std::memcpy(ends.rows[j], chunk.rows + j * row_bytes + depth * 2, static_cast<size_t>(left) * 2);
          }
          chunk.ends = &ends;
        }
        all_lanes(chunk, count, lanes);
      }
    }
    Tiles::release();
    for (int i = 0; tile.out && i < tile.num_rows; ++i) {
      Elementwise<Tiles::kWidth>::store(tile.c + int64_t{i} * lanes, tile.count, tile.out_type, tile.out[i],
                                        tile.accumulate);
    }
  }
};

}  // namespace
}  // namespace motley::kernels
