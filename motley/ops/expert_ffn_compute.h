// Forward and backward of the feed-forward over all waves of a WeightSource, without autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include "motley/ops/expert_weights.h"
#include "motley/ops/routing_plan.h"
#include "motley/ops/zero_experts.h"

namespace motley::ops {

// The zero-computation experts of the same choices: slots [T, K]; or none.
struct ChosenZeroExperts {
  at::Tensor slots;
  ZeroExperts experts;
};

struct ExpertFfnForward {
  at::Tensor y;       // [T, D]
  at::Tensor hidden;  // H [max_rows, G], or undefined unless kept
};
ExpertFfnForward compute_expert_ffn(const at::Tensor& x, const at::Tensor& gate_weights,
                                    const RoutingPlan& plan, WeightSource& source, at::ScalarType out_dtype,
                                    bool keep_hidden, const ChosenZeroExperts& zero_experts = {});

struct ExpertFfnGradients {
  at::Tensor dx;             // [T, D] in x's dtype
  at::Tensor dgate_weights;  // [T, K] fp32
};
// Computes the weights' gradients only where asked to, and hands them to the source.
ExpertFfnGradients compute_expert_ffn_backward(const at::Tensor& dy, const at::Tensor& x,
                                               const at::Tensor& hidden, const at::Tensor& gate_weights,
                                               const RoutingPlan& plan, WeightSource& source,
                                               bool weight_gradients);

}  // namespace motley::ops
