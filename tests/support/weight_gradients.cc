#include "tests/support/weight_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "motley/ops/expert_ffn.h"
#include "motley/ops/operators.h"
#include "tests/support/precision.h"

namespace motley::test {

void check_added_weight_gradients(const ExpertProblem& problem, double tolerance) {
  const auto& plan = problem.plan;
  const auto& w = problem.weights;
  const auto hidden = at::zeros({plan.max_rows(), w.gate_up.size(1)}, problem.x.options());
  ops::expert_rows(problem.x, plan, w, at::zeros({plan.max_rows(), problem.x.size(1)}, problem.x.options()),
                   hidden);
  const auto input = ops::expert_ffn_backward_input(problem.dy, hidden, problem.gate_weights, plan, w);
  const auto fresh =
      ops::expert_ffn_backward_weight(problem.dy, problem.x, input, problem.gate_weights, plan, w);
  const auto ones = [](const at::Tensor& like) {
    return at::full(like.sizes(), 1, like.options().dtype(at::kFloat));
  };
  const ExpertWeightGradients buffers = {ones(fresh.gate_up), ones(fresh.down), ones(fresh.gate_up_bias),
                                         ones(fresh.down_bias)};
  for (int pass = 0; pass < 2; ++pass) {
    const auto out =
        ops::expert_ffn_backward_weight(problem.dy, problem.x, input, problem.gate_weights, plan, w, buffers);
    EXPECT_TRUE(out.gate_up.is_same(buffers.gate_up));
  }
  const auto twice = [](const at::Tensor& gradient) { return gradient.to(at::kDouble).mul(2).add(1); };
  expect_close("gate_up", buffers.gate_up, twice(fresh.gate_up), tolerance);
  expect_close("down", buffers.down, twice(fresh.down), tolerance);
  expect_close("gate_up_bias", buffers.gate_up_bias, twice(fresh.gate_up_bias), tolerance);
  expect_close("down_bias", buffers.down_bias, twice(fresh.down_bias), tolerance);
  const auto both = ops::expert_ffn_backward(problem.dy, problem.x, hidden, problem.gate_weights, plan, w);
  expect_same_bits("dx", both.input.dx, input.dx);
  expect_same_bits("gate_up at once", both.weights.gate_up, fresh.gate_up);
  expect_same_bits("down at once", both.weights.down, fresh.down);
  expect_same_bits("down_bias at once", both.weights.down_bias, fresh.down_bias);
  const auto added = ones(fresh.down);
  ops::expert_ffn_backward(problem.dy, problem.x, hidden, problem.gate_weights, plan, w,
                           {ones(fresh.gate_up), added, ones(fresh.gate_up_bias), ones(fresh.down_bias)});
  expect_close("down added at once", added, fresh.down.to(at::kDouble).add(1), tolerance);
}

ExpertProblem with_free_place(ExpertProblem problem, bool absent_expert) {
  if (absent_expert) {
    problem.weights.place_of_expert = at::tensor({3, -1, 0, 2}, problem.slots.options());
  } else {
    problem.num_experts = 3;
    problem.plan = ops::routing_plan(problem.slots, problem.num_experts);
  }
  return problem;
}

void check_overwritten_weight_gradients(const ExpertProblem& problem) {
  const auto& plan = problem.plan;
  const auto& w = problem.weights;
  const auto hidden =
      random_values({plan.max_rows(), w.gate_up.size(1)}, problem.x.scalar_type(), 5).to(problem.x.device());
  const auto poisoned = [](const at::Tensor& like) {
    return at::full_like(like, std::numeric_limits<double>::quiet_NaN());
  };
  const auto down_at_once = poisoned(w.down);
  const auto [dx, dgate_weights, dhidden, activated] = ops::expert_ffn_backward_input_operator().call(
      problem.dy, hidden, problem.gate_weights, plan.row_assignment, plan.expert_offset, plan.token_rows,
      w.gate_up, w.down, ops::optional(w.gate_up_bias), ops::optional(w.down_bias),
      ops::optional(w.place_of_expert), static_cast<int64_t>(w.activation.kind), w.activation.alpha,
      w.activation.limit, down_at_once, /*accumulate=*/false);
  std::vector<at::Tensor> found;
  for (const auto& weight : {w.gate_up, w.down, w.gate_up_bias, w.down_bias}) {
    found.push_back(poisoned(weight));
  }
  ops::expert_ffn_backward_weight_operator().call(
      problem.dy, problem.x, dhidden, activated, problem.gate_weights, plan.row_assignment,
      plan.expert_offset, ops::optional(w.place_of_expert), w.num_places(), plan.top_k(), found[0], found[1],
      found[2], found[3], /*accumulate=*/false);
  found.push_back(down_at_once);
  for (const auto& gradient : found) {
    const auto written = at::isfinite(gradient).all(), by_place = gradient.flatten(1).ne(0).any(1);
    EXPECT_TRUE(written.item<bool>());
    EXPECT_EQ(by_place.sum().item<int64_t>(), w.num_places() - 1);
  }
}

}  // namespace motley::test
