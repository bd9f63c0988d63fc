#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "tests/routing/gate_support.h"

namespace motley {
namespace {

const std::vector<float> kTwoTokens = {0.1f, 0.2f, 0.3f, 0.4f, 0.7f, 0.05f, 0.15f, 0.1f};

TEST(SoftmaxGate, TopKWeightsAreTheProbabilities) {
  const Routing routing = route_probabilities(square_options(4, 2), kTwoTokens);
  expect_slots(routing, {3, 2, 0, 2});
  expect_close(routing.weights, matrix(2, {0.4f, 0.3f, 0.7f, 0.15f}));
  expect_load(routing, {1, 0, 2, 1});
  EXPECT_EQ(routing.dropped.item<int64_t>(), 0);
  EXPECT_TRUE(routing.losses.empty());
}

TEST(SoftmaxGate, NormalisedWeightsSumToOneAndAreScaledLast) {
  GateOptions options = square_options(4, 2);
  options.weight_normalisation = WeightNormalisation::kTopK;
  expect_close(route_probabilities(options, kTwoTokens).weights,
               matrix(2, {4.0f / 7, 3.0f / 7, 0.7f / 0.85f, 0.15f / 0.85f}));
  options.routed_scaling_factor = 2.5;
  expect_close(route_probabilities(options, kTwoTokens).weights,
               matrix(2, {10.0f / 7, 7.5f / 7, 1.75f / 0.85f, 0.375f / 0.85f}));
}

// Switch Transformer: one slot a token. f = (.5, 0, 0, .5), P = (.4, .125, .225, .25), 4 sum f P = 1.3.
TEST(SoftmaxGate, SwitchTopOneAndItsBalanceLoss) {
  GateOptions options = square_options(4, 1);
  options.balance_loss = BalanceLoss::kSwitch;
  options.balance_loss_coef = 0.01;
  const Routing routing = route_probabilities(options, kTwoTokens, /*training=*/true);
  expect_slots(routing, {3, 0});
  expect_close(routing.weights, matrix(1, {0.4f, 0.7f}));
  EXPECT_NEAR(loss_of(routing, "balance"), 0.013, 1e-7);
  EXPECT_TRUE(route_probabilities(options, kTwoTokens, /*training=*/false).losses.empty());
}

// Every slot chosen alike by even probabilities: the loss is K.
TEST(SoftmaxGate, BalanceLossOfEvenChoicesIsTheirNumber) {
  GateOptions options = square_options(2, 2);
  options.balance_loss = BalanceLoss::kSwitch;
  options.balance_loss_coef = 1;
  EXPECT_NEAR(loss_of(route_probabilities(options, {0.5f, 0.5f, 0.5f, 0.5f}, true), "balance"), 2.0, 1e-6);
}

// logsumexp of (0, 0) is ln 2, of (0, ln 3) ln 4: the mean square is (0.480453 + 1.921812) / 2.
TEST(SoftmaxGate, ZLossIsTheMeanSquareOfLogSumExp) {
  GateOptions options = square_options(2, 1);
  options.router_z_loss_coef = 0.1;
  GateInput input;
  input.x = matrix(2, {0, 0, 0, std::log(3.0f)});
  input.training = true;
  EXPECT_NEAR(loss_of(unit_gate(options)->route(input), "z"), 0.12011326, 1e-6);
}

TEST(SoftmaxGate, SelectionBiasChoosesButDoesNotWeigh) {
  GateOptions options = square_options(4, 2);
  options.selection_bias = true;
  auto gate = unit_gate(options);
  auto tensors = tensors_of(*gate);
  tensors.at("e_score_correction_bias").copy_(at::tensor({0.5f, 0.0f, 0.0f, -0.35f}));
  GateInput input;
  input.x = matrix(4, {0.1f, 0.2f, 0.3f, 0.4f}).log();
  const Routing routing = gate->route(input);
  expect_slots(routing, {0, 2});
  expect_close(routing.weights, matrix(2, {0.1f, 0.3f}));
  gate->update(at::zeros({4}));  // a rate of 0 never moves it
  expect_close(tensors.at("e_score_correction_bias"), at::tensor({0.5f, 0.0f, 0.0f, -0.35f}));
}

TEST(SoftmaxGate, UpdateMovesTheBiasByTheSignOfTheMissingLoad) {
  GateOptions options = square_options(4, 2);
  options.selection_bias = true;
  options.selection_bias_update_rate = 0.25;
  auto gate = unit_gate(options);
  gate->update(at::tensor({4.0f, 0.0f, 2.0f, 2.0f}));
  expect_close(tensors_of(*gate).at("e_score_correction_bias"), at::tensor({-0.25f, 0.25f, 0.0f, 0.0f}));
  EXPECT_THROW(gate->update(at::zeros({3})), c10::Error);
}

// tau = 1/2 wants half as much on each of 2 experts as on each of 2 others: 12 in shares of 1 : 1 : 2 : 2.
TEST(SoftmaxGate, UpdateWantsTheSharesOfTau) {
  GateOptions options = square_options(2, 2, {ZeroExpertKind::kZero, ZeroExpertKind::kCopy});
  options.selection_bias = true;
  options.selection_bias_update_rate = 1;
  options.tau = 0.5;
  auto gate = unit_gate(options);
  gate->update(at::tensor({3.0f, 2.0f, 4.0f, 3.0f}));
  expect_close(tensors_of(*gate).at("e_score_correction_bias"), at::tensor({-1.0f, 0.0f, 0.0f, 1.0f}));
}

TEST(SoftmaxGate, MaskedTokensChooseNothingAndCountInNoLoss) {
  GateOptions options = square_options(4, 1);
  options.balance_loss = BalanceLoss::kSwitch;
  options.balance_loss_coef = 1;
  options.router_z_loss_coef = 1;
  auto gate = unit_gate(options);
  GateInput input;
  input.training = true;
  input.x = matrix(4, kTwoTokens).log();
  const Routing both = gate->route(input);
  // The same two tokens with others between that are masked.
  input.x = matrix(4, {0.1f, 0.2f, 0.3f, 0.4f, 1, 2, 3, 4, 0.7f, 0.05f, 0.15f, 0.1f}).log();
  input.token_mask = at::tensor({1, 0, 1}).to(at::kBool);
  const Routing routing = gate->route(input);
  expect_slots(routing, {3, -1, 0});
  expect_close(routing.weights, matrix(1, {0.4f, 0.0f, 0.7f}));
  expect_load(routing, {1, 0, 0, 1});
  EXPECT_NEAR(loss_of(routing, "balance"), loss_of(both, "balance"), 1e-6);
  EXPECT_NEAR(loss_of(routing, "z"), loss_of(both, "z"), 1e-6);
}

TEST(SoftmaxGate, LogitsAreFp32WhateverTheInputIs) {
  GateOptions options = square_options(4, 2);
  options.hidden_size = 64;
  auto gate = make_gate(options, at::kBFloat16);
  const at::Tensor weight = tensors_of(*gate).at("weight");
  EXPECT_EQ(weight.scalar_type(), at::kBFloat16);
  weight.normal_();
  GateInput input;
  input.x = at::randn({7, 64}).to(at::kBFloat16);
  const Routing routing = gate->route(input);
  EXPECT_EQ(routing.logits.scalar_type(), at::kFloat);
  EXPECT_EQ(routing.weights.scalar_type(), at::kFloat);
  expect_close(routing.logits, input.x.to(at::kFloat).matmul(weight.to(at::kFloat).t()), 1e-6);
}

TEST(SoftmaxGate, NoTokens) {
  GateOptions options = square_options(3, 2);
  options.capacity_factor = 1;
  options.balance_loss = BalanceLoss::kSwitch;
  options.balance_loss_coef = 1;
  options.router_z_loss_coef = 1;
  GateInput input;
  input.x = at::empty({0, 3});
  input.training = true;
  const Routing routing = unit_gate(options)->route(input);
  EXPECT_EQ(routing.slots.sizes(), (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(routing.load.sum().item<int64_t>(), 0);
  EXPECT_EQ(loss_of(routing, "balance"), 0);
  EXPECT_EQ(loss_of(routing, "z"), 0);
}

TEST(SoftmaxGate, NamesWhatIsWrongWithItsInput) {
  GateOptions options = square_options(3, 2);
  options.gating_residual = true;
  const auto gate = unit_gate(options);
  const auto message = [&](const GateInput& input) -> std::string {
    try {
      gate->route(input);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "nothing was thrown";
  };
  GateInput input;
  input.x = at::zeros({2, 4});
  EXPECT_NE(message(input).find("expected x [T, 3]"), std::string::npos) << message(input);
  input.x = at::zeros({2, 3});
  input.previous_logits = at::zeros({2, 2});
  EXPECT_NE(message(input).find("expected previous_logits [2, 3]"), std::string::npos) << message(input);
  input.previous_logits = at::Tensor();
  input.token_mask = at::zeros({2});
  EXPECT_NE(message(input).find("expected token_mask [2] of bool"), std::string::npos) << message(input);
}

}  // namespace
}  // namespace motley
