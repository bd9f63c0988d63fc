// Sizes and arguments shared by all grouped products for sm_80 or newer.
#pragma once

#include <algorithm>

#include "motley/kernels/cuda/divisor.h"

namespace motley::cuda::sm80 {

// A thread block computes 128 x 256 of the output; each of its 8 warps 64 x 64. A step of K is 64 bytes of
// a line: 32 elements of 16 bits, 16 of fp32.
constexpr int kTileM = 128;
constexpr int kTileN = 256;
constexpr int kLineBytes = 64;
constexpr int kThreads = 256;
constexpr int kWarpsM = 2;
constexpr int kWarpTile = 64;
constexpr int kStageABytes = kTileM * kLineBytes;
constexpr int kStageBBytes = kTileN * kLineBytes;
constexpr int kStageBytes = kStageABytes + kStageBBytes;
template <class T>
constexpr int kTileK = kLineBytes / static_cast<int>(sizeof(T));

// What a block keeps of the plan: first unit of work, first row and place of every expert.
constexpr int table_bytes(int num_experts) { return (3 * num_experts + 1) * static_cast<int>(sizeof(int)); }

// Stages that fit beside the table: 4 where a block may have 100 KiB and experts are few, else 3.
constexpr int num_stages(int shared_limit_bytes, int num_experts) {
  return std::clamp((shared_limit_bytes - table_bytes(num_experts)) / kStageBytes, 3, 4);
}

// Row tiles whose columns are computed one after another, so that their weights stay in L2.
constexpr int kGroup = 12;

struct PlanParams {
  const int* expert_offset;    // [E + 1]
  const int* place_of_expert;  // [E], or null
  const int* row_assignment;
  Divisor top_k;
  int num_experts;
  int num_m_tiles, num_n_tiles;  // of one expert; num_m_tiles for outer products only
  int stages;
};

// Lines by row of the plan, or by token where gathered.
template <class T>
struct Lines {
  const T* data;
  long stride;
  int width;
  bool gathered;
};

// A [rows, K] times B of the row's expert.
template <class T>
struct RowsParams : PlanParams {
  Lines<T> a;
  const T* b;
  long b_stride, b_place_stride;  // between B's lines, between places
  int b_width;                    // N
};

// Of every expert, A^T B over its rows.
template <class T>
struct OuterParams : PlanParams {
  Lines<T> a, b;
};

}  // namespace motley::cuda::sm80
