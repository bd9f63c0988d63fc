// The formulas of MoE++ (arXiv 2410.07348), of its released code, and of AdaMoE, on numbers worked out by
// hand.
#include <cmath>

#include "tests/routing/gate_support.h"

namespace motley {
namespace {

const std::vector<ZeroExpertKind> kConstantAndZero = {ZeroExpertKind::kConstant, ZeroExpertKind::kZero};

GateOptions released_gate(int64_t top_k) {
  GateOptions options = square_options(2, top_k, kConstantAndZero);
  options.scoring = Scoring::kStandardisedSoftmax;
  options.weight_normalisation = WeightNormalisation::kTopKExceptZero;
  return options;
}

// Eq. 6 with W = 1 and W_g = (0 1; 2 0): (1 + 20, 2 + 2 * 10).
TEST(MoePlusPlus, GatingResidualAddsThePreviousRawLogits) {
  GateOptions options = square_options(2, 1);
  options.gating_residual = true;
  auto gate = unit_gate(options);
  tensors_of(*gate).at("residual.weight").copy_(matrix(2, {0, 1, 2, 0}));
  GateInput input;
  input.x = matrix(2, {1, 2});
  expect_close(gate->route(input).logits, matrix(2, {1, 2}));  // the first layer
  input.previous_logits = matrix(2, {10, 20});
  const Routing routing = gate->route(input);
  expect_close(routing.logits, matrix(2, {21, 22}));
  expect_slots(routing, {1});
}

// Token 1 takes slots 3 and 2, token 2 slots 0 and 1: f = (.5, .5, .5, .5), P = (.4, .15, .2, .25).
// Eq. 7: .5 * .4 + .5 * .15 + tau (.5 * .2 + .5 * .25) with tau = .5.
TEST(MoePlusPlus, HeterogeneousBalanceLoss) {
  GateOptions options = square_options(2, 2, kConstantAndZero);
  options.balance_loss = BalanceLoss::kHeterogeneous;
  options.balance_loss_coef = 0.01;
  options.tau = 0.5;
  const Routing routing =
      route_probabilities(options, {0.1f, 0.2f, 0.3f, 0.4f, 0.7f, 0.1f, 0.1f, 0.1f}, true);
  expect_slots(routing, {3, 2, 0, 1});
  EXPECT_NEAR(loss_of(routing, "balance"), 0.01 * 0.3875, 1e-7);
}

TEST(MoePlusPlus, PaperGateKeepsTheSoftmaxOverAllSlots) {
  const Routing routing =
      route_probabilities(square_options(2, 2, kConstantAndZero), {0.1f, 0.2f, 0.3f, 0.4f});
  expect_slots(routing, {3, 2});
  expect_close(routing.weights, matrix(2, {0.4f, 0.3f}));
}

// Logits (4, 1, 3, 2) have the standard deviation sqrt(5 / 3); slots 0 and 2 differ by one.
TEST(MoePlusPlus, ReleasedGateStandardisesAndRenormalises) {
  GateInput input;
  input.x = matrix(4, {4, 1, 3, 2});
  const float ratio = std::exp(1 / std::sqrt(5.0f / 3));
  const Routing routing = unit_gate(released_gate(2))->route(input);
  expect_slots(routing, {0, 2});
  expect_close(routing.weights, matrix(2, {ratio / (1 + ratio), 1 / (1 + ratio)}));
  EXPECT_NEAR(routing.weights[0][0].item<float>(), 0.684514, 1e-5);
  expect_close(routing.logits, input.x);

  GateOptions wide = released_gate(2);
  wide.gate_norm_std = 2;
  expect_close(unit_gate(wide)->route(input).weights,
               matrix(2, {ratio * ratio / (1 + ratio * ratio), 1 / (1 + ratio * ratio)}));
}

// The zero expert at slot 3 is chosen and counted, its weight goes to the other choice.
TEST(MoePlusPlus, ReleasedGateGivesTheZeroExpertNoWeight) {
  GateInput input;
  input.x = matrix(4, {1, 2, 3, 4});
  const Routing routing = unit_gate(released_gate(2))->route(input);
  expect_slots(routing, {3, 2});
  expect_close(routing.weights, matrix(2, {0, 1}));
  expect_load(routing, {0, 0, 1, 1});
}

TEST(MoePlusPlus, NothingButZeroExpertsIsNoWeightAndNoNan) {
  GateInput input;
  input.x = matrix(4, {1, 2, 3, 4});
  expect_close(unit_gate(released_gate(1))->route(input).weights, matrix(1, {0}));
  input.x = matrix(4, {2, 2, 2, 2});  // no deviation to divide by
  expect_close(unit_gate(released_gate(2))->route(input).weights, matrix(2, {0.5f, 0.5f}));
}

GateOptions ada_moe(int64_t top_k) {
  GateOptions options = square_options(2, top_k, {ZeroExpertKind::kZero, ZeroExpertKind::kZero});
  options.weight_normalisation = WeightNormalisation::kTopKExceptZero;
  return options;
}

TEST(AdaMoe, NormalisesOverTheTrueExpertsAmongTheChoices) {
  const Routing routing = route_probabilities(ada_moe(3), {0.3f, 0.1f, 0.2f, 0.4f, 0.3f, 0.25f, 0.05f, 0.4f});
  expect_slots(routing, {3, 0, 2, 3, 0, 1});
  expect_close(routing.weights, matrix(3, {0, 1, 0, 0, 0.3f / 0.55f, 0.25f / 0.55f}));
  expect_close(route_probabilities(ada_moe(2), {0.1f, 0.2f, 0.3f, 0.4f}).weights, matrix(2, {0, 0}));
}

// f = (.5, 0, .5, 1) becomes (.5, 0, .75, .75); P = (.3, .15, .2, .35); 4 (.15 + .15 + .2625) = 2.25.
TEST(AdaMoe, LossTakesTheMeanLoadOfTheNullExperts) {
  GateOptions options = ada_moe(2);
  options.balance_loss = BalanceLoss::kAdaMoe;
  options.balance_loss_coef = 0.02;
  const Routing routing =
      route_probabilities(options, {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.1f, 0.1f, 0.3f}, true);
  expect_slots(routing, {3, 2, 0, 3});
  EXPECT_NEAR(loss_of(routing, "balance"), 0.02 * 2.25, 1e-6);
}

}  // namespace
}  // namespace motley
