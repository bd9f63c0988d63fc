#include "motley/routing/capacity.h"

#include <ATen/ops/randn.h>

#include "tests/routing/gate_support.h"

namespace motley {
namespace {

// Eq. 8 of MoE++ with tau E + Z = 0.75 * 8 + 4 = 10 and gamma T = 110: 8.25 and 11, twice that with K = 2.
TEST(Capacity, FollowsEquation8InTokensAndInAssignments) {
  GateOptions options = square_options(8, 2, std::vector<ZeroExpertKind>(4, ZeroExpertKind::kCopy));
  options.capacity_factor = 1.1;
  options.tau = 0.75;
  options.capacity_unit = CapacityUnit::kTokens;
  EXPECT_EQ(slot_capacity(options, 100).ffn, 9);
  EXPECT_EQ(slot_capacity(options, 100).zero, 11);  // not 12, though 1.1 * 100 is a little more than 110
  options.capacity_unit = CapacityUnit::kAssignments;
  EXPECT_EQ(slot_capacity(options, 100).ffn, 17);
  EXPECT_EQ(slot_capacity(options, 100).zero, 22);
}

TEST(Capacity, WithoutZeroExpertsIsGShardsAndNeverMoreThanTheTokens) {
  GateOptions options = square_options(8, 2);
  options.capacity_factor = 1.25;
  EXPECT_EQ(slot_capacity(options, 64).ffn, 20);
  EXPECT_EQ(slot_capacity(options, 1).ffn, 1);
  EXPECT_EQ(slot_capacity(options, 0).ffn, 0);
  for (const double factor : {1e2, 1e30, 1e308}) {
    options.capacity_factor = factor;
    EXPECT_EQ(slot_capacity(options, 64).ffn, 64);
  }
}

// Four tokens want slot 0 first; T / E = 2 have room. The last token's second choice is free.
TEST(Capacity, DropsTheLastTokensOfAFullSlot) {
  GateOptions options = square_options(2, 1);
  options.capacity_factor = 1;
  options.balance_loss = BalanceLoss::kSwitch;
  options.balance_loss_coef = 1;
  const std::vector<float> all_to_0 = {0.6f, 0.4f, 0.7f, 0.3f, 0.8f, 0.2f, 0.9f, 0.1f};
  const Routing routing = route_probabilities(options, all_to_0, /*training=*/true);
  expect_slots(routing, {0, 0, -1, -1});
  expect_close(routing.weights, matrix(1, {0.6f, 0.7f, 0, 0}));
  expect_load(routing, {2, 0});
  EXPECT_EQ(routing.dropped.item<int64_t>(), 2);
  // f counts choices before drops: 2 (1 * 0.75 + 0 * 0.25).
  EXPECT_NEAR(loss_of(routing, "balance"), 1.5, 1e-6);

  EXPECT_EQ(route_probabilities(options, all_to_0, /*training=*/false).dropped.item<int64_t>(), 0);
  options.capacity_in_inference = true;
  EXPECT_EQ(route_probabilities(options, all_to_0, /*training=*/false).dropped.item<int64_t>(), 2);
}

// E = 1, Z = 2, tau = 1/2, K = 2, 4 tokens: tau E + Z = 2.5, 8 assignments: 8 * .5 / 2.5 -> 2, 8 / 2.5 -> 4.
TEST(Capacity, ExpertsAndZeroExpertsHaveTheirOwn) {
  GateOptions options = square_options(1, 2, {ZeroExpertKind::kCopy, ZeroExpertKind::kZero});
  options.capacity_factor = 1;
  options.tau = 0.5;
  std::vector<float> probabilities;
  for (int t = 0; t < 4; ++t) probabilities.insert(probabilities.end(), {0.5f, 0.3f, 0.2f});
  const Routing routing = route_probabilities(options, probabilities, /*training=*/true);
  expect_slots(routing, {0, 1, 0, 1, -1, 1, -1, 1});
  expect_load(routing, {2, 4, 0});
  EXPECT_EQ(routing.dropped.item<int64_t>(), 2);
}

TEST(Capacity, NormalisesBeforeItDrops) {
  GateOptions options = square_options(3, 2);
  options.capacity_factor = 0.75;  // ceil(0.75 * 4 / 3) = 1
  options.weight_normalisation = WeightNormalisation::kTopK;
  const Routing routing =
      route_probabilities(options, {0.6f, 0.3f, 0.1f, 0.6f, 0.1f, 0.3f}, /*training=*/true);
  expect_slots(routing, {0, 1, -1, 2});
  expect_close(routing.weights, matrix(2, {2.0f / 3, 1.0f / 3, 0, 1.0f / 3}));
}

// The masked token takes no place and the three others share ceil(3 / 2).
TEST(Capacity, CountsOnlyTokensThatTheMaskLetsThrough) {
  GateOptions options = square_options(2, 1);
  options.capacity_factor = 1;
  GateInput input;
  input.training = true;
  input.x = matrix(2, {1, 0, 2, 0, 3, 0, 4, 0});
  input.token_mask = at::tensor({0, 1, 1, 1}).to(at::kBool);
  const Routing routing = unit_gate(options)->route(input);
  expect_slots(routing, {-1, 0, 0, -1});
  EXPECT_EQ(routing.dropped.item<int64_t>(), 1);
}

// Above 2^24 fp32 has no odd numbers.
TEST(Capacity, CountsEveryAssignmentOfAHugeBatch) {
  RoutingPlan plan;
  plan.expert_offset = at::tensor({0, 16777217, 16777217 + 33554433}, at::kInt);
  EXPECT_TRUE(assigned_load(plan).equal(at::tensor({16777217, 33554433}, at::kLong)));
}

TEST(Capacity, RoomForAllIsDropless) {
  GateOptions options = square_options(6, 2, {ZeroExpertKind::kCopy, ZeroExpertKind::kZero});
  GateInput input;
  input.x = at::randn({50, 8});
  input.training = true;
  const Routing dropless = unit_gate(options)->route(input);
  options.capacity_factor = 8;
  const Routing roomy = unit_gate(options)->route(input);
  EXPECT_TRUE(roomy.slots.equal(dropless.slots));
  EXPECT_TRUE(roomy.weights.equal(dropless.weights));
  EXPECT_TRUE(roomy.load.equal(dropless.load));
  EXPECT_EQ(roomy.dropped.item<int64_t>(), 0);
}

}  // namespace
}  // namespace motley
