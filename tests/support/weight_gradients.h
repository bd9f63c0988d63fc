// What the weight gradients of the expert feed-forward do with tensors that they are given.
#pragma once

#include "tests/support/expert_problem.h"

namespace motley::test {

// Two passes into fp32 tensors that hold ones, which come back; input and weight gradients in one call give
// the same, fresh and added.
void check_added_weight_gradients(const ExpertProblem& problem, double tolerance);

// A problem of four experts with one place that no expert takes: the last, of an expert that the plan does
// not know, or one among them, of an absent expert.
ExpertProblem with_free_place(ExpertProblem problem, bool absent_expert);
// Of such a problem: tensors that are not added to are overwritten wholly. NaNs do not survive, and the free
// place gets zeros.
void check_overwritten_weight_gradients(const ExpertProblem& problem);

}  // namespace motley::test
