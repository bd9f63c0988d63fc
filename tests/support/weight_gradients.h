// What the weight gradients of the expert feed-forward do with tensors that they are given.
#pragma once

#include "tests/support/expert_problem.h"

namespace motley::test {

// Two passes into fp32 tensors that hold ones, which come back; input and weight gradients in one call give
// the same, fresh and added.
void check_added_weight_gradients(const ExpertProblem& problem, double tolerance);

}  // namespace motley::test
