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

// The rows of a Tile must be equally spaced, and the depth of each vector of its panel together. Registers:
// sums 0 to 3 (rows x lanes, 2 x 2), rows 4 and 5, panel 6 and 7: four loads for four products is the least
// that eight registers allow.
template <class Tiles>
struct TileProduct {
  static constexpr int kSide = 16;          // rows, and lanes, of a register of sums
  static constexpr int kStep = 32;          // elements of the depth in one product
  static constexpr int kGroup = 2 * kSide;  // rows, and lanes, that are computed together
  static constexpr int kMostRows = 128;     // of one call, which is long enough to configure anew
  static constexpr int64_t kLine = 64;      // bytes of a register's row

  // The last elements of the depth, filled up with zeros.
  struct Ends {
    alignas(64) uint16_t rows[kGroup][kStep];
    alignas(64) std::byte panel[kMaxVectors][kSide][kLine];
  };

  // Up to kGroup rows against all lanes.
  struct Group {
    const std::byte* rows;
    int64_t row_bytes;  // from one row to the next
    int64_t steps;
    const Ends* ends;  // null: the depth is a multiple of kStep
    float* c;
    int64_t c_bytes;
    bool from_c;
    Rows next;  // lines to fetch meanwhile, as in Tile
    int num_next;
    int64_t next_step;
    int num_rows;
  };

  // One step of the depth: at `panel`, and `vector_bytes` further for the second vector.
  template <int M, int N>
  static inline __attribute__((always_inline)) void multiply(const std::byte* rows, int64_t row_bytes,
                                                             const std::byte* panel, int64_t vector_bytes) {
    Tiles::template load<6>(panel, kLine);
    Tiles::template load<4>(rows, row_bytes);
    Tiles::template multiply_add<0, 4, 6>();
    if constexpr (N == 2) {
      Tiles::template load<7>(panel + vector_bytes, kLine);
      Tiles::template multiply_add<1, 4, 7>();
    }
    if constexpr (M == 2) {
      Tiles::template load<5>(rows + kSide * row_bytes, row_bytes);
      Tiles::template multiply_add<2, 5, 6>();
      if constexpr (N == 2) Tiles::template multiply_add<3, 5, 7>();
    }
  }

  // M x N registers of sums, from `vector` on.
  template <int M, int N>
  static void block(const Group& group, const Panel& panel, int vector) {
    float* c = group.c + vector * kSide;
    const int64_t c_bytes = group.c_bytes;
    float* c_low = c + kSide * c_bytes / 4;
    if (group.from_c) {
      Tiles::template load<0>(c, c_bytes);
      if constexpr (N == 2) Tiles::template load<1>(c + kSide, c_bytes);
      if constexpr (M == 2) Tiles::template load<2>(c_low, c_bytes);
      if constexpr (M == 2 && N == 2) Tiles::template load<3>(c_low + kSide, c_bytes);
    } else {
      Tiles::template zero<0>();
      if constexpr (N == 2) Tiles::template zero<1>();
      if constexpr (M == 2) Tiles::template zero<2>();
      if constexpr (M == 2 && N == 2) Tiles::template zero<3>();
    }
    const std::byte* rows = group.rows;
    const std::byte* lines = panel.line(0, vector);
    const int pairs = (panel.vectors + 1) / 2, first_next = share(group.num_next, vector / 2, pairs);
    const Rows next = group.next + first_next;
    const int num_next = share(group.num_next, vector / 2 + 1, pairs) - first_next;
    const int64_t row_bytes = group.row_bytes, vector_bytes = panel.vector_lines * kLine;
    const int64_t steps = group.steps, next_step = group.next_step;
    for (int64_t step = 0; step < steps; ++step) {
      multiply<M, N>(rows, row_bytes, lines, vector_bytes);
      rows += kLine;
      lines += kSide * kLine;
      for (int i = 0; i < num_next; ++i) {
        __builtin_prefetch(static_cast<const std::byte*>(next[i]) + step * next_step, 0, 2);
      }
    }
    if (group.ends) {
      multiply<M, N>(reinterpret_cast<const std::byte*>(group.ends->rows), kLine,
                     group.ends->panel[vector][0], kSide * kLine);
    }
    Tiles::template store<0>(c, c_bytes);
    if constexpr (N == 2) Tiles::template store<1>(c + kSide, c_bytes);
    if constexpr (M == 2) Tiles::template store<2>(c_low, c_bytes);
    if constexpr (M == 2 && N == 2) Tiles::template store<3>(c_low + kSide, c_bytes);
  }

  // Where part `i` of `parts` begins.
  static int share(int count, int i, int parts) { return count * i / parts; }

  static void all_lanes(const Group& group, const Panel& panel) {
    for (int vector = 0; vector < panel.vectors; vector += 2) {
      const bool pair = panel.vectors - vector > 1;
      if (group.num_rows > kSide) {
        pair ? block<2, 2>(group, panel, vector) : block<2, 1>(group, panel, vector);
      } else {
        pair ? block<1, 2>(group, panel, vector) : block<1, 1>(group, panel, vector);
      }
    }
  }

  static void run(const Tile& tile) {
    const Panel& panel = tile.panel;
    const int lanes = panel.lanes();
    const auto* rows = static_cast<const std::byte*>(tile.rows[0]);
    const int64_t row_bytes = tile.num_rows > 1 ? static_cast<const std::byte*>(tile.rows[1]) - rows : 0;
    const int64_t left = tile.depth % kStep;
    const int64_t whole = tile.depth - left;
    Ends ends;
    if (left > 0) {
      std::memset(&ends, 0, sizeof ends);
      for (int v = 0; v < panel.vectors; ++v) {
        std::memcpy(ends.panel[v], panel.line(whole / 2, v), static_cast<size_t>((left + 1) / 2 * kLine));
      }
    }
    int configured = 0;
    for (int i = 0; i < tile.num_rows; i += kGroup) {
      const int count = std::min(kGroup, tile.num_rows - i);
      if (count != configured) Tiles::configure(std::min(count, kSide), std::max(count - kSide, 1));
      configured = count;
      Group group{rows + i * row_bytes,
                  row_bytes,
                  whole / kStep,
                  nullptr,
                  tile.c + int64_t{i} * lanes,
                  int64_t{lanes} * 4,
                  tile.from_c,
                  tile.next + share(tile.num_next, i, tile.num_rows),
                  share(tile.num_next, i + count, tile.num_rows) - share(tile.num_next, i, tile.num_rows),
                  tile.next_step,
                  count};
      for (int j = 0; left > 0 && j < count; ++j) {
        std::memcpy(ends.rows[j], group.rows + j * row_bytes + whole * 2, static_cast<size_t>(left) * 2);
      }
      if (left > 0) group.ends = &ends;
      all_lanes(group, panel);
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
