// What inference on a CPU does after the experts: rows and zero-computation experts of a token in one sum.
#pragma once

#include <ATen/core/Tensor.h>

#include "motley/ops/routing_plan.h"
#include "motley/ops/zero_experts.h"

namespace motley::ops {

// token_sum plus zero_experts, rounded once: nothing of size [T, D] is written but the result, in x's dtype.
// rows [max_rows, D], x [T, D] and the experts' tensors of one dtype, fp32 or bf16; routing as in both. No
// gradients.
at::Tensor token_sum_with_zero_experts(const at::Tensor& rows, const RoutingPlan& plan, const at::Tensor& x,
                                       const at::Tensor& slots, const at::Tensor& weights,
                                       const ZeroExperts& experts);

}  // namespace motley::ops
