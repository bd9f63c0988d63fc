// The single expert operators: expert_matmul, expert_sum, expert_outer, token_sum.
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "motley/ops/expert_ffn.h"
#include "tests/support/expert_problem.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"
#include "tests/support/reference.h"

namespace motley::test {
namespace {

const auto kInt32 = at::TensorOptions().dtype(at::kInt);

// An operator and its reference as functions of the same differentiable inputs.
struct Pair {
  std::string name;
  std::function<at::Tensor(const Tensors&)> op, reference;
  Tensors inputs;
};

// Every operator in every mode on one problem. The experts stand at places in reverse and one is absent.
std::vector<Pair> all_pairs(const ExpertProblem& problem) {
  const auto plan = problem.plan;
  const auto dtype = problem.x.scalar_type();
  const int64_t width = problem.x.size(1), out = 21, num_experts = problem.num_experts;
  const auto rows = random_values({plan.max_rows(), width}, dtype, 71);
  const auto dy_rows = random_values({plan.max_rows(), out}, dtype, 72);
  const auto weight = random_values({num_experts, out, width}, dtype, 73);
  const auto bias = random_values({num_experts, out}, dtype, 74);
  const auto places = at::tensor({3, 2, -1, 0}, kInt32);
  std::vector<Pair> pairs;
  for (const bool by_token : {true, false}) {
    for (const bool transposed : {true, false}) {
      for (const auto& place : {at::Tensor(), places}) {
        const std::string mode = std::string(by_token ? "by token" : "by row") +
                                 (transposed ? ", transposed" : "") + (place.defined() ? ", places" : "");
        pairs.push_back(
            {"expert_matmul " + mode,
             [=](const Tensors& in) {
               return ops::expert_matmul(in[0], in[1], in[2], plan,
                                         place.defined() ? std::optional(place) : std::nullopt, by_token,
                                         transposed);
             },
             [=](const Tensors& in) {
               return reference_expert_matmul(in[0], in[1], in[2], plan, place, by_token, transposed);
             },
             {by_token ? problem.x : rows, transposed ? weight : weight.transpose(1, 2).contiguous(), bias}});
      }
    }
    pairs.push_back({std::string("expert_outer ") + (by_token ? "by token" : "by row"),
                     [=](const Tensors& in) { return ops::expert_outer(in[0], in[1], plan, by_token); },
                     [=](const Tensors& in) { return reference_expert_outer(in[0], in[1], plan, by_token); },
                     {dy_rows, by_token ? problem.x : rows}});
  }
  pairs.push_back({"expert_sum",
                   [=](const Tensors& in) { return ops::expert_sum(in[0], plan); },
                   [=](const Tensors& in) { return reference_expert_sum(in[0], plan); },
                   {rows}});
  pairs.push_back({"token_sum",
                   [=](const Tensors& in) { return ops::token_sum(in[0], in[1], plan); },
                   [=](const Tensors& in) { return reference_token_sum(in[0], in[1], plan); },
                   {rows, problem.gate_weights}});
  pairs.push_back({"token_sum of ones",
                   [=](const Tensors& in) { return ops::token_sum(in[0], {}, plan); },
                   [=](const Tensors& in) { return reference_token_sum(in[0], {}, plan); },
                   {rows}});
  return pairs;
}

TEST(ExpertOperators, AgreeWithTheReference) {
  for (const auto& precision : cpu_precisions()) {
    for (const auto spread : all_spreads()) {
      for (const auto& pair : all_pairs(make_expert_problem({.dtype = precision.dtype, .spread = spread}))) {
        SCOPED_TRACE(pair.name + " " + precision.name + " " + name_of(spread));
        const auto inputs = leaves(pair.inputs), reference_inputs = leaves(pair.inputs);
        const auto y = pair.op(inputs), expected = pair.reference(reference_inputs);
        expect_close("result", y, expected, precision.tolerance);
        const auto dy = random_values(y.sizes(), y.scalar_type(), 5);
        const auto found = gradients(y, inputs, dy);
        const auto wanted = gradients(expected, reference_inputs, dy.to(at::kDouble));
        for (size_t i = 0; i < inputs.size(); ++i) {
          const auto zeros = at::zeros_like(inputs[i]);  // where the reference does not depend on it
          const auto& gradient = wanted[i].defined() ? wanted[i] : zeros;
          EXPECT_EQ(found[i].scalar_type(), inputs[i].scalar_type());
          expect_close("gradient " + std::to_string(i), found[i], gradient, precision.tolerance);
        }
      }
    }
  }
}

TEST(ExpertOperators, ReferenceGradientsAreFiniteDifferences) {
  const auto problem = make_expert_problem({.num_tokens = 5, .width = 4});
  for (const auto& pair : all_pairs(problem)) {
    SCOPED_TRACE(pair.name);
    const auto inputs = leaves(pair.inputs, at::kDouble);
    const auto y = pair.reference(inputs);
    const auto dy = random_values(y.sizes(), at::kDouble, 5);
    const auto found = gradients(y, inputs, dy);
    const auto wanted = finite_differences(
        [&](const Tensors& at_point) { return pair.reference(at_point).mul(dy).sum().item<double>(); },
        inputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      expect_close("gradient " + std::to_string(i), found[i], wanted[i], 1e-7);
    }
  }
}

TEST(ExpertOperators, TakeAnyLayout) {
  for (const auto& pair : all_pairs(make_expert_problem({}))) {
    SCOPED_TRACE(pair.name);
    const bool has_weight = pair.name.starts_with("expert_matmul");
    const auto inputs = leaves(pair.inputs);
    const auto expected = pair.op(inputs);
    const auto dy = at::full({1}, 0.25F).expand(expected.sizes());
    const auto expected_gradients = gradients(expected, inputs, dy.contiguous());
    for (const auto& layout : {strided, misaligned}) {
      auto other = pair.inputs;
      for (size_t i = 0; i < other.size(); ++i) {
        other[i] = has_weight && i == 1 ? other[i] : layout(other[i]);
      }
      expect_same_bits("result", pair.op(other), expected);
    }
    for (const auto& gradient : {dy, strided(dy), misaligned(dy)}) {
      const auto again = leaves(pair.inputs);
      const auto found = gradients(pair.op(again), again, gradient);
      for (size_t i = 0; i < found.size(); ++i) {
        expect_same_bits("gradient " + std::to_string(i), found[i], expected_gradients[i]);
      }
    }
  }
}

TEST(ExpertOperators, RefuseDoubleBackward) {
  for (const auto& pair : all_pairs(make_expert_problem({}))) {
    const auto inputs = leaves(pair.inputs);
    const auto y = pair.op(inputs);
    const auto message =
        error_of([&] { gradients(y, inputs, at::full(y.sizes(), 1, y.options()), /*create_graph=*/true); });
    const auto op = pair.name.substr(0, pair.name.find(' '));
    EXPECT_EQ(
        message,
        "[" + op + "] expected a first backward, got create_graph=True: double backward is not supported");
  }
}

TEST(ExpertMatmul, ReadsExpertsAtAnyStride) {
  const auto problem = make_expert_problem({});
  const auto weight = random_values({4, 21, 37}, at::kFloat, 1);
  // Experts every two blocks of a larger buffer.
  const auto spaced = at::full({4, 2, 21, 37}, 77.0F).select(1, 1).copy_(weight);
  const auto expected = ops::expert_matmul(problem.x, weight, {}, problem.plan, {}, true);
  expect_same_bits("y", ops::expert_matmul(problem.x, spaced, {}, problem.plan, {}, true), expected);
}

TEST(ExpertMatmul, LeavesRowsOfAbsentExpertsZero) {
  const auto problem = make_expert_problem({});
  const auto weight = random_values({1, 21, 37}, at::kFloat, 1);
  const auto places = at::tensor({-1, -1, 0, -1}, kInt32);
  const auto y = ops::expert_matmul(problem.x, weight, {}, problem.plan, places, true);
  const auto expected = reference_expert_matmul(problem.x, weight, {}, problem.plan, places, true, true);
  EXPECT_GT(expected.count_nonzero().item<int64_t>(), 0);
  expect_same_bits("zeros", y.eq(0), expected.eq(0));
}

TEST(TokenSum, AddsInTheOrderOfTheChoicesInFp32) {
  // In fp32, (1e8 + 1) - 1e8 = 0 but (1e8 - 1e8) + 1 = 1; bf16 rows, one rounding at the end.
  const auto slots = at::tensor({2, 0, 1, 2, 1, 0}, kInt32).view({2, 3});
  const auto plan = ops::routing_plan(slots, 3);
  const auto weights = at::tensor({1e8F, 1.0F, -1e8F, 1e8F, -1e8F, 1.0F}).view({2, 3});
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto rows = at::full({6, 1}, 1, at::TensorOptions().dtype(dtype));
    const auto y = ops::token_sum(rows, weights, plan, at::kFloat);
    EXPECT_EQ(y.scalar_type(), at::kFloat);
    expect_same_bits("y", y, at::tensor({0.0F, 1.0F}).view({2, 1}));
  }
}

}  // namespace
}  // namespace motley::test
