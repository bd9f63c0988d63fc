// Experts with and without a feed-forward network in one sum, against the fp64 definition.
#pragma once

#include <vector>

#include "motley/ops/zero_experts.h"
#include "tests/support/expert_problem.h"
#include "tests/support/precision.h"

namespace motley::test {

// The two zero-computation experts that make_expert_problem's slots know, of every kind there is.
const std::vector<std::vector<ZeroExpertKind>>& kinds_to_test();

// Forward with and without gradients, rounded and in fp32, all gradients, the same bits twice; and on a GPU
// from slots alone. `parameters` is the dtype of the constant experts.
void check_zero_expert_sum(const ExpertProblem& problem, const std::vector<ZeroExpertKind>& kinds,
                           at::ScalarType parameters, double tolerance, at::Device device);

}  // namespace motley::test
