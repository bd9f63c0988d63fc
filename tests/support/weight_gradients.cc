#include "tests/support/weight_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "motley/ops/expert_ffn.h"
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

}  // namespace motley::test
