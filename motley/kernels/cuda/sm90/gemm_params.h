// Sizes and arguments shared by all grouped products on Hopper.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "motley/kernels/cuda/divisor.h"
#include "motley/kernels/cuda/row_tile.h"

namespace motley::cuda::sm90 {

// A cluster of two thread blocks computes a tile of 256 x 256 of the output: each block has two warp
// groups of 64 rows x 256 columns, and the blocks share the B operand by multicast.
constexpr int kBlockRows = 64;  // rows of one warp group
constexpr int kTileN = 256;
constexpr int kTileK = 64;
constexpr int kStages = 3;  // of B, and of A where TMA brings it: 48 KiB each
constexpr int kClusterBlocks = 2;
constexpr int kThreads = 384;
constexpr int kEpilogueWarps = 3;

struct GemmParams {
  CUtensorMap map_a;  // unused where rows are gathered
  CUtensorMap map_b;

  // The gathered operand: row r of the plan is row row_assignment[r] / top_k of `gathered`.
  const __nv_bfloat16* gathered = nullptr;
  unsigned gathered_stride = 0;  // between rows, in 16-byte units
  int gathered_width = 0;        // columns
  const int* row_assignment = nullptr;
  Divisor top_k;

  // Products over rows: M is the rows of a tile, K is `depth`.
  const RowTile* tiles = nullptr;
  const int* num_tiles = nullptr;
  int depth = 0;
  int group = 1;  // row tiles that are computed together for one column tile after another (L2 reuse)

  // Added to the products over rows, where there is one: element n of place's bias to column n.
  const __nv_bfloat16* bias = nullptr;
  long bias_stride = 0;  // between places
  int bias_width = 0;

  // Outer products: K is the rows of an expert, M the columns of the gathered operand.
  const int* expert_offset = nullptr;
  const int* place_of_expert = nullptr;
  const int* dealt = nullptr;  // see deal_tiles.h; null: by number
  int num_experts = 0;
  int num_m_tiles = 0;

  int num_n_tiles = 0;
};

}  // namespace motley::cuda::sm90
