// Every mistake in the expert operators' arguments is one error that says where, what was expected and
// what was found.
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "motley/ops/expert_ffn.h"
#include "motley/ops/operators.h"
#include "tests/support/expert_problem.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"

namespace motley::test {
namespace {

const auto kInt32 = at::TensorOptions().dtype(at::kInt);

// T = 4 tokens of K = 2 choices of E = 3 experts; D = 8, F = 5.
ExpertProblem small() {
  return make_expert_problem(
      {.bias = true, .num_tokens = 4, .num_experts = 3, .width = 8, .expert_width = 5});
}

std::string ffn_error(const ExpertProblem& problem) {
  return error_of([&] { ops::expert_ffn(problem.x, problem.gate_weights, problem.plan, problem.weights); });
}

// The error of expert_ffn after `change`.
template <typename Change>
std::string ffn_error_after(Change&& change) {
  auto problem = small();
  change(problem);
  return ffn_error(problem);
}

TEST(BadInput, Tokens) {
  EXPECT_EQ(ffn_error_after([](auto& p) { p.x = p.x.to(at::kDouble); }),
            "[expert_rows] expected x of dtype Float or BFloat16, got Double");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.x = p.x.to(at::kHalf); }),
            "[expert_rows] expected x of dtype Float or BFloat16, got Half");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.x = p.x.unsqueeze(0); }),
            "[expert_ffn] expected x [T, D], got 3 dimensions");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.gate_weights = at::Tensor(); }),
            "[expert_ffn] expected gate_weights [T, K], got an undefined tensor");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.gate_weights = p.gate_weights.to(at::kBFloat16); }),
            "[token_sum] expected gate_weights of dtype Float, got BFloat16");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.gate_weights = p.gate_weights.narrow(1, 0, 1); }),
            "[token_sum] expected gate_weights [T, K] = [4, 2], got [4, 1]");
}

TEST(BadInput, Weights) {
  EXPECT_EQ(ffn_error_after([](auto& p) { p.weights.gate_up = p.weights.gate_up.to(at::kBFloat16); }),
            "[expert_rows] expected gate_up of dtype Float, got BFloat16");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.weights.gate_up = p.weights.gate_up.narrow(1, 0, 5); }),
            "[expert_rows] expected gate_up [P, 2F, D] = [3, 10, 8], got [3, 5, 8]");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.weights.activation.kind = ActivationKind::kRelu; }),
            "[expert_rows] expected gate_up [P, F, D] = [3, 5, 8], got [3, 10, 8]");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.weights.down = at::Tensor(); }),
            "[expert_rows] expected down [P, D, F], got an undefined tensor");
  EXPECT_EQ(ffn_error_after([](auto& p) {
              p.weights.down = p.weights.down.transpose(1, 2).contiguous().transpose(1, 2);
            }),
            "[expert_rows] expected down [P, D, F] with each expert in one contiguous block, got strides "
            "[40, 1, 8]; call contiguous() on it first");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.weights.down_bias = p.weights.down_bias.narrow(1, 0, 7); }),
            "[expert_rows] expected down_bias [P, D] = [3, 8], got [3, 7]");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.weights.down_scale = p.weights.down_bias; }),
            "[expert_ffn] expected weights without scales, got quantised ones: no kernel takes them yet");
}

TEST(BadInput, Places) {
  EXPECT_EQ(ffn_error_after([](auto& p) {
              p.weights.place_of_expert = at::tensor({0, 1, 3}, kInt32);
            }),
            "[expert_rows] expected values of place_of_expert from -1 to 2, got 3");
  EXPECT_EQ(ffn_error_after([](auto& p) {
              p.weights.place_of_expert = at::tensor({0, 1}, kInt32);
            }),
            "[expert_rows] expected place_of_expert [E] = [3], got [2]");
  EXPECT_EQ(
      ffn_error_after([](auto& p) {
        for (auto* tensor :
             {&p.weights.gate_up, &p.weights.down, &p.weights.gate_up_bias, &p.weights.down_bias}) {
          *tensor = tensor->narrow(0, 0, 2);
        }
      }),
      "[expert_rows] expected weights of at least the plan's 3 experts, got 2 (or give place_of_expert)");
}

TEST(BadInput, Plan) {
  EXPECT_EQ(ffn_error_after([](auto& p) { p.plan.row_assignment = p.plan.row_assignment.to(at::kLong); }),
            "[expert_rows] expected row_assignment of dtype Int, got Long");
  EXPECT_EQ(ffn_error_after([](auto& p) {
              p.plan.expert_offset = at::tensor({0, 2, 1, 2}, kInt32);
            }),
            "[expert_rows] expected expert_offset [E + 1] to ascend from 0 to at most the " +
                std::to_string(small().plan.max_rows()) + " rows of row_assignment, got 0 first and 2 last");
  EXPECT_EQ(
      ffn_error_after([](auto& p) { p.plan.row_assignment = p.plan.row_assignment.add(8); }).substr(0, 65),
      "[expert_rows] expected values of row_assignment from 0 to 7, got ");
  EXPECT_EQ(ffn_error_after([](auto& p) { p.plan.token_rows = p.plan.token_rows.add(100); }).substr(0, 51),
            "[token_sum] expected values of token_rows from -1 t");
}

TEST(BadInput, ExpertMatmul) {
  const auto p = small();
  const auto weight = at::zeros({3, 6, 8});
  EXPECT_EQ(
      error_of([&] { ops::expert_matmul(p.x, weight, {}, p.plan, {}, true, /*transpose_weight=*/false); }),
      "[expert_matmul] expected weight [P, in, out] = [any, 8, any], got [3, 6, 8]");
  EXPECT_EQ(error_of([&] {
              ops::expert_matmul(p.x, weight, at::zeros({3, 8}), p.plan, {}, true);
            }),
            "[expert_matmul] expected bias [P, out] = [3, 6], got [3, 8]");
  const auto rows = at::zeros({p.plan.max_rows() + 1, 8});
  EXPECT_EQ(error_of([&] { ops::expert_matmul(rows, weight, {}, p.plan, {}, /*by_token=*/false); }),
            "[expert_matmul] expected x [max_rows, in] = [" + std::to_string(p.plan.max_rows()) +
                ", any], got [" + std::to_string(p.plan.max_rows() + 1) + ", 8]");
}

TEST(BadInput, WrittenTensors) {
  const auto p = small();
  const int64_t num_rows = p.plan.max_rows();
  const c10::NoGradGuard no_grad;
  const auto rows_error = [&](const at::Tensor& rows) {
    return error_of([&] { ops::expert_rows(p.x, p.plan, p.weights, rows); });
  };
  EXPECT_EQ(rows_error(at::zeros({num_rows, 7})), "[expert_rows] expected rows [max_rows, D] = [" +
                                                      std::to_string(num_rows) + ", 8], got [" +
                                                      std::to_string(num_rows) + ", 7]");
  EXPECT_EQ(rows_error(strided(at::zeros({num_rows, 8}))),
            "[expert_rows] expected rows, which is written, to be contiguous, got sizes [" +
                std::to_string(num_rows) + ", 8] with strides [16, 2]");
  EXPECT_EQ(
      rows_error(misaligned(at::zeros({num_rows, 8}))),
      "[expert_rows] expected rows, which is written, at an address divisible by 16, got a view at element 1 "
      "of its storage");
  EXPECT_EQ(error_of([&] {
              ops::token_sum(at::zeros({num_rows, 8}), {}, p.plan, at::kDouble);
            }),
            "[token_sum] expected out_dtype Float or that of rows, Float, got Double");
}

TEST(BadInput, WeightGradients) {
  const auto p = small();
  const auto& w = p.weights;
  const c10::NoGradGuard no_grad;
  const auto hidden = at::zeros({p.plan.max_rows(), 10}), activated = at::zeros({p.plan.max_rows(), 5});
  const auto weight_error = [&](const at::Tensor& gate_up_grad, int64_t hidden_width = 10) {
    return error_of([&] {
      ops::expert_ffn_backward_weight_operator().call(
          p.dy, p.x, hidden.narrow(1, 0, hidden_width), activated, p.gate_weights, p.plan.row_assignment,
          p.plan.expert_offset, {}, 3, 2, gate_up_grad, {}, {}, {}, /*accumulate=*/false);
    });
  };
  EXPECT_EQ(weight_error({}),
            "[expert_ffn_backward_weight] expected gate_up_grad [P, G, D], got an undefined tensor");
  EXPECT_EQ(weight_error(at::zeros({3, 10, 7})),
            "[expert_ffn_backward_weight] expected gate_up_grad [P, G, D] = [3, 10, 8], got [3, 10, 7]");
  EXPECT_EQ(
      weight_error(at::zeros({3, 10, 8}, at::kDouble)),
      "[expert_ffn_backward_weight] expected gate_up_grad of dtype Float or that of the weights, Float, got "
      "Double");
  EXPECT_EQ(
      weight_error(at::zeros({3, 7, 8}), 7),
      "[expert_ffn_backward_weight] expected dhidden [max_rows, G] with G = F or 2 F and F = 5 of activated, "
      "got G = 7");
  EXPECT_EQ(error_of([&] {
              ops::expert_ffn_backward_input_operator().call(
                  p.dy, hidden, p.gate_weights, p.plan.row_assignment, p.plan.expert_offset,
                  p.plan.token_rows, w.gate_up, w.down, {}, {}, {}, static_cast<int64_t>(w.activation.kind),
                  w.activation.alpha, w.activation.limit,
                  /*down_grad=*/{}, /*accumulate=*/true);
            }),
            "[expert_ffn_backward_input] expected down_grad to accumulate into, got none");
}

TEST(BadInput, GradientsOfOperatorsWithoutDerivative) {
  const auto p = small();
  const auto rows = at::zeros({p.plan.max_rows(), 8});
  EXPECT_EQ(error_of([&] { ops::expert_rows(leaf(p.x), p.plan, p.weights, rows); }),
            "[expert_rows] expected tensors that require no gradient (or gradients disabled): it has no "
            "derivative, got one of sizes [4, 8] that requires it");
}

// Inference mode skips autograd, not the checks.
TEST(BadInput, IsNoticedInInferenceMode) {
  auto p = small();
  const auto expected = ops::expert_ffn(p.x, p.gate_weights, p.plan, p.weights);
  const c10::InferenceMode inference;
  p.x = p.x.clone();
  p.plan = ops::routing_plan(p.slots, p.num_experts);
  expect_same_bits("y", ops::expert_ffn(p.x, p.gate_weights, p.plan, p.weights), expected);
  p.weights.down = p.weights.down.narrow(1, 0, 7).clone();
  EXPECT_EQ(ffn_error(p), "[expert_rows] expected down [P, D, F] = [any, 8, any], got [3, 7, 5]");
}

// What was saved for backward and is written afterwards must be noticed.
TEST(BadInput, RowsOverwrittenBeforeBackward) {
  const auto p = small();
  const auto rows = at::full({p.plan.max_rows(), 8}, 1.0F);
  const auto gate_weights = leaf(p.gate_weights);
  const auto y = ops::token_sum(rows, gate_weights, p.plan);
  ops::expert_rows(p.x, p.plan, p.weights, rows);
  const auto message = error_of([&] { gradients(y, {gate_weights}, p.dy); });
  EXPECT_NE(message.find("modified by an inplace operation"), std::string::npos) << message;
}

}  // namespace
}  // namespace motley::test
