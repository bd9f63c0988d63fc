// Fills the shared part of a grouped product's arguments.
#pragma once

#include "motley/kernels/cuda/expert_products.h"
#include "motley/kernels/cuda/sm90/gemm_params.h"
#include "motley/kernels/cuda/sm90/tensor_map.h"

namespace motley::cuda::sm90 {

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

inline void set_rows_walk(GemmParams& p, const ExpertPlan& plan, int depth, int num_n_tiles) {
  p.tiles = plan.schedule.tiles;
  p.num_tiles = plan.schedule.num_tiles;
  p.depth = depth;
  p.num_n_tiles = num_n_tiles;
  // Row tiles of a group read an expert's weights together. Where those stay in L2 from one group to the
  // next, small groups are best: rows are read again sooner.
  constexpr long kStaysInL2 = 24l << 20;
  p.group = 2l * depth * num_n_tiles * kTileN <= kStaysInL2 ? 2 : 8;
}

inline void set_outer_walk(GemmParams& p, const ExpertShape& shape, const ExpertPlan& plan, int height,
                           int num_n_tiles) {
  p.expert_offset = plan.expert_offset;
  p.place_of_expert = plan.place_of_expert;
  p.num_experts = shape.num_experts;
  p.num_m_tiles = ceil_div(height, 2 * kClusterBlocks * kBlockRows);
  p.num_n_tiles = num_n_tiles;
}

// Rows of the plan by their token.
inline void set_gathered(GemmParams& p, const ExpertShape& shape, const ExpertPlan& plan, const void* tokens,
                         long stride, int width) {
  p.gathered = static_cast<const __nv_bfloat16*>(tokens);
  p.gathered_stride = static_cast<unsigned>(stride / 8);
  p.gathered_width = width;
  p.row_assignment = plan.row_assignment;
  p.top_k = Divisor(shape.top_k);
}

inline void set_bias(GemmParams& p, PlacedBias bias, int width) {
  p.bias = static_cast<const __nv_bfloat16*>(bias.data);
  p.bias_stride = bias.stride;
  p.bias_width = width;
}

// An array by row, in boxes of 64 x 64.
inline CUtensorMap rows_map(const ExpertShape& shape, const void* rows, long stride, int width) {
  return make_tensor_map(rows, width, shape.max_rows, 1, stride, stride * shape.max_rows, kBlockRows);
}

// Weights [P, rows, columns], in boxes of box_rows x 64.
inline CUtensorMap weights_map(const ExpertShape& shape, PlacedWeights weights, int rows, int columns,
                               int box_rows) {
  return make_tensor_map(weights.data, columns, rows, shape.num_places, columns, weights.stride, box_rows);
}

}  // namespace motley::cuda::sm90
