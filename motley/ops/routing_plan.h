// The re-index vector of HEXA-MoE (arXiv 2411.01288, Alg. 1) without its padding: assignments of
// tokens to experts, sorted by expert, as integers only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace motley {

struct RoutingPlan {
  // An assignment is t*K + k: choice k of token t. Slots outside [0, E) have no row.
  at::Tensor row_assignment;  // [max_rows] int32: the assignment of each row; -1 past the last row
  at::Tensor expert_offset;   // [E + 1] int32: expert e has rows expert_offset[e] .. expert_offset[e+1]
  at::Tensor token_rows;      // [T, K] int32: the row of each assignment, -1 without one

  int64_t num_tokens() const { return token_rows.size(0); }
  int64_t top_k() const { return token_rows.size(1); }
  int64_t num_experts() const { return expert_offset.size(0) - 1; }
  int64_t max_rows() const { return row_assignment.size(0); }  // T*K, or N where the host has counts
};

namespace ops {

// Stable counting sort of slots [T, K] int32 by expert; slots < 0 or >= num_experts get no row.
// Deterministic; on CPU max_rows is N, the number of rows. Throws c10::Error for another dtype or rank.
RoutingPlan routing_plan(const at::Tensor& slots, int64_t num_experts);

}  // namespace ops
}  // namespace motley
