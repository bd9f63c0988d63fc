// Parameters of the zero-computation experts of one layer, as both kinds of MoE layer hold them.
#pragma once

#include <string>
#include <vector>

#include "motley/ops/parameters.h"
#include "motley/ops/routing.h"
#include "motley/ops/zero_experts.h"

namespace motley {

// constant [Z_constant, D] and constant_gate [Z_constant, 2, D] of zeros where there are constant experts.
ZeroExperts make_zero_experts(const std::vector<ZeroExpertKind>& kinds, int64_t hidden_size,
                              at::ScalarType dtype);

// The weighted sum of the chosen ones [T, D] fp32; undefined where they all give zeros.
at::Tensor zero_expert_part(const at::Tensor& x, const Routing& routing, int64_t num_experts,
                            const ZeroExperts& experts);

// Names: constant, constant_gate.
void visit_zero_experts(const std::string& prefix, const TensorVisitor& visitor, ZeroExperts& experts);

}  // namespace motley
