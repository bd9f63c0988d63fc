// The operators in fp64, written to be read: loops over experts and ATen functions, whose autograd also
// gives reference gradients. Inputs of any floating dtype; results fp64.
#pragma once

#include <ATen/core/Tensor.h>

#include "motley/ops/expert_weights.h"
#include "motley/ops/routing_plan.h"
#include "motley/ops/zero_experts.h"

namespace motley::test {

RoutingPlan reference_plan(const at::Tensor& slots, int64_t num_experts);

// Where a tensor is undefined it stays so.
ExpertWeights in_fp64(const ExpertWeights& weights);

at::Tensor reference_activation(const at::Tensor& hidden, const Activation& activation);

at::Tensor reference_expert_matmul(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                   const RoutingPlan& plan, const at::Tensor& place_of_expert, bool by_token,
                                   bool transpose_weight);
at::Tensor reference_expert_sum(const at::Tensor& y, const RoutingPlan& plan);
at::Tensor reference_expert_outer(const at::Tensor& dy, const at::Tensor& x, const RoutingPlan& plan,
                                  bool x_by_token);
at::Tensor reference_token_sum(const at::Tensor& rows, const at::Tensor& gate_weights,
                               const RoutingPlan& plan);

// From slots, not from a plan.
at::Tensor reference_expert_ffn(const at::Tensor& x, const at::Tensor& gate_weights, const at::Tensor& slots,
                                const ExpertWeights& weights, int64_t num_experts);
at::Tensor reference_zero_experts(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                                  int64_t num_experts, const ZeroExperts& experts);

}  // namespace motley::test
