// The compute node of the feed-forward in the autograd graph.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "motley/ops/expert_ffn_compute.h"

namespace motley::ops {

// Weights from, and their gradients to, `source`.
at::Tensor expert_ffn_node(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                           std::shared_ptr<WeightSource> source, at::ScalarType out_dtype,
                           const ChosenZeroExperts& zero_experts);

// Weights as inputs of the node, saved by reference.
at::Tensor expert_ffn_node(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                           const ExpertWeights& weights, at::ScalarType out_dtype);

}  // namespace motley::ops
