// The gate after its logits: one kernel against ATen's operators, and its gradients against autograd's.
#include "motley/ops/gate_select.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/std.h>
#include <ATen/ops/where.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

namespace motley::ops {
namespace {

struct Setting {
  std::string name;
  int64_t num_slots;
  GateRule rule;
};

std::vector<Setting> settings() {
  using enum GateNormalisation;
  return {
      {"plain", 12, {.top_k = 2, .zero_slots = {}}},
      {"one choice of many slots", 130, {.top_k = 1, .zero_slots = {}}},
      {"normalised", 7, {.top_k = 3, .normalisation = kTopK, .zero_slots = {}, .scale = 2.5}},
      {"without zeros", 6, {.top_k = 4, .normalisation = kTopKExceptZero, .zero_slots = {1, 5}}},
      {"standardised", 9, {.top_k = 2, .standardise = true, .norm_std = 1.5, .zero_slots = {}}},
      {"all slots", 5, {.top_k = 5, .standardise = true, .normalisation = kTopK, .zero_slots = {}}},
  };
}

struct Reference {
  at::Tensor chosen, weights, scores;
};

Reference reference(const at::Tensor& logits, const at::Tensor& bias, const GateRule& rule) {
  at::Tensor inner = logits;
  if (rule.standardise) {
    const at::Tensor deviation = at::std(logits, at::IntArrayRef{1}, at::Scalar(1), /*keepdim=*/true);
    inner = logits.div(deviation).mul(rule.norm_std);
  }
  Reference result;
  result.scores = at::softmax(inner, 1);
  const at::Tensor ranking = bias.defined() ? result.scores.detach().add(bias) : result.scores.detach();
  result.chosen = std::get<1>(ranking.sort(/*stable=*/true, 1, /*descending=*/true))
                      .narrow(1, 0, rule.top_k)
                      .contiguous();
  result.weights = result.scores.gather(1, result.chosen);
  if (rule.normalisation == GateNormalisation::kTopKExceptZero) {
    for (const int64_t slot : rule.zero_slots) {
      result.weights = result.weights.masked_fill(result.chosen.eq(slot), 0);
    }
  }
  if (rule.normalisation != GateNormalisation::kNone) {
    const at::Tensor sum = result.weights.sum(1, true);
    result.weights = result.weights.div(at::where(sum.gt(0), sum, at::ones_like(sum)));
  }
  result.weights = result.weights.mul(rule.scale);
  return result;
}

void expect_close(const at::Tensor& found, const at::Tensor& expected, const char* what) {
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  EXPECT_TRUE(at::allclose(found, expected, 1e-5, 1e-6))
      << what << " differ by " << found.sub(expected).abs().max().item<double>();
}

TEST(GateSelect, EqualsATensOperators) {
  at::manual_seed(3);
  for (const Setting& setting : settings()) {
    SCOPED_TRACE(setting.name);
    const at::Tensor logits = at::randn({300, setting.num_slots}).mul(2).requires_grad_(true);
    const at::Tensor copy = logits.detach().clone().requires_grad_(true);
    const at::Tensor bias = at::randn({setting.num_slots}).mul(0.1);
    const GateSelected found = gate_select(logits, bias, std::nullopt, setting.rule);
    const Reference expected = reference(copy, bias, setting.rule);
    EXPECT_TRUE(found.slots.equal(expected.chosen.to(at::kInt)));
    EXPECT_TRUE(found.load.equal(expected.chosen.flatten().bincount({}, setting.num_slots)));
    expect_close(found.weights, expected.weights, "weights");
    expect_close(found.scores, expected.scores, "scores");

    const at::Tensor dweights = at::randn(found.weights.sizes()), dscores = at::randn(found.scores.sizes());
    found.weights.mul(dweights).sum().add(found.scores.mul(dscores).sum()).backward();
    expected.weights.mul(dweights).sum().add(expected.scores.mul(dscores).sum()).backward();
    expect_close(logits.grad(), copy.grad(), "gradients");
  }
}

TEST(GateSelect, GivesMaskedTokensNothing) {
  const at::Tensor logits = at::randn({4, 6}).requires_grad_(true);
  const at::Tensor mask = at::ones_like(logits.detach().select(1, 0)).to(at::kBool);
  mask[1].fill_(false);
  const GateSelected found = gate_select(
      logits, std::nullopt, mask, {.top_k = 2, .normalisation = GateNormalisation::kTopK, .zero_slots = {}});
  EXPECT_EQ(found.slots[1].max().item<int>(), -1);
  EXPECT_EQ(found.weights[1].abs().sum().item<float>(), 0);
  EXPECT_EQ(found.load.sum().item<float>(), 6);
  found.weights.mul(at::randn({4, 2})).sum().backward();
  EXPECT_EQ(logits.grad()[1].abs().sum().item<float>(), 0);
  EXPECT_GT(logits.grad()[2].abs().sum().item<float>(), 0);
}

TEST(GateSelect, TakesTheLowerOfEqualSlotsAndShowsWhatIsNotFinite) {
  const GateRule rule{.top_k = 2, .zero_slots = {}};
  const at::Tensor equal =
      gate_select(at::ones_like(at::randn({1, 5})), std::nullopt, std::nullopt, rule).slots;
  EXPECT_EQ(equal[0][0].item<int>(), 0);
  EXPECT_EQ(equal[0][1].item<int>(), 1);
  at::Tensor logits = at::randn({2, 5});
  logits[0][3] = std::numeric_limits<float>::quiet_NaN();
  logits[1][2] = -std::numeric_limits<float>::infinity();
  const GateSelected found = gate_select(logits, std::nullopt, std::nullopt, rule);
  EXPECT_TRUE(std::isnan(found.weights[0][0].item<float>()));
  EXPECT_EQ(found.scores[1][2].item<float>(), 0);
  EXPECT_NEAR(found.scores[1].sum().item<float>(), 1, 1e-6);
}

}  // namespace
}  // namespace motley::ops
