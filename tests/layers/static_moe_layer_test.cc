#include "motley/layers/static_moe_layer.h"

#include <c10/core/InferenceMode.h>

#include "benchmarks/memory_meter.h"
#include "motley/ops/zero_experts.h"
#include "tests/layers/layer_support.h"

namespace motley {
namespace {

struct Pair {
  std::unique_ptr<MoeBlock> dynamic, padded;
};

// The same weights in both.
Pair make_pair(MoeLayerOptions options) {
  Pair pair;
  pair.dynamic = make_moe_layer(options, seeded(0.5));
  options.gating = MoeGating::kStatic;
  pair.padded = make_moe_layer(options);
  copy_tensors(*pair.dynamic, *pair.padded);
  return pair;
}

void expect_same(const Pair& pair, const GateInput& input, double tolerance) {
  const auto [y, routing] = pair.dynamic->forward(input);
  const auto [padded_y, padded_routing] = pair.padded->forward(input);
  EXPECT_TRUE(padded_routing.slots.equal(routing.slots));
  EXPECT_TRUE(padded_routing.load.equal(routing.load));
  EXPECT_EQ(padded_y.scalar_type(), y.scalar_type());
  expect_close(padded_y, y, tolerance);
}

TEST(StaticMoeLayer, EqualsTheDynamicLayerWhereNothingIsDropped) {
  at::manual_seed(11);
  for (const ActivationKind kind :
       {ActivationKind::kSwiGlu, ActivationKind::kGeGlu, ActivationKind::kClampedSwiGlu,
        ActivationKind::kGelu, ActivationKind::kRelu, ActivationKind::kSilu}) {
    SCOPED_TRACE(static_cast<int64_t>(kind));
    MoeLayerOptions options = small_layer({ZeroExpertKind::kCopy, ZeroExpertKind::kZero});
    options.activation.kind = kind;
    options.expert_bias = true;
    Pair pair = make_pair(options);
    for (auto& [name, tensor] : tensors_of(*pair.dynamic)) {
      if (name.find("bias") != std::string::npos) tensor.normal_();
    }
    copy_tensors(*pair.dynamic, *pair.padded);
    GateInput input;
    input.x = at::randn({33, 10});
    expect_same(pair, input, 1e-5);
  }
}

TEST(StaticMoeLayer, EqualsTheDynamicLayerInBf16) {
  MoeLayerOptions options = small_layer();
  options.dtype = at::kBFloat16;
  GateInput input;
  input.x = at::randn({33, 10}).to(at::kBFloat16);
  expect_same(make_pair(options), input, 3e-2);
}

TEST(StaticMoeLayer, DropsWhatCapacityGatingDrops) {
  at::manual_seed(12);
  for (const double factor : {0.5, 0.75, 1.0}) {
    MoeLayerOptions options = small_layer({ZeroExpertKind::kCopy});
    options.gate.capacity_factor = factor;
    options.gate.tau = 0.75;
    const Pair pair = make_pair(options);
    GateInput input;
    input.x = at::randn({40, 10});
    input.training = true;
    const Routing routing = pair.padded->forward(input).second;
    EXPECT_GT(routing.dropped.item<int64_t>(), 0) << factor;
    expect_same(pair, input, 1e-5);
    input.training = false;  // as many places as the fullest expert has tokens
    EXPECT_EQ(pair.padded->forward(input).second.dropped.item<int64_t>(), 0);
    expect_same(pair, input, 1e-5);
  }
}

// Without a capacity the places follow the fullest expert, not T: two masks of 2000 x 8 x 2000 would take 256
// MB.
TEST(StaticMoeLayer, PadsToTheFullestExpertWhereNothingIsDropped) {
  at::manual_seed(14);
  MoeLayerOptions options = small_layer();
  options.gate.num_experts = 8;
  options.gate.capacity_factor = 1.0;
  const Pair pair = make_pair(options);
  GateInput input;
  input.x = at::randn({2000, 10});
  const c10::InferenceMode inference;
  const bench::MemoryMeter meter;
  const Routing routing = pair.padded->forward(input).second;
  const auto fullest = routing.load.max().item<int64_t>();
  ASSERT_LT(fullest, 1500);
  EXPECT_LT(meter.peak_bytes(), 4 * 2000 * 8 * fullest * 4);
  EXPECT_LT(meter.peak_bytes(), 2 * 2000 * 8 * 2000 * 4);
}

TEST(StaticMoeLayer, TokensThatChooseOnlyZeroExpertsNeedNoPlaces) {
  MoeLayerOptions options = small_layer({ZeroExpertKind::kZero, ZeroExpertKind::kZero});
  options.gate.selection_bias = true;
  options.gate.capacity_factor = 1.0;
  const Pair pair = make_pair(options);
  tensors_of(*pair.padded).at("mlp.gate.e_score_correction_bias").narrow(0, 4, 2).fill_(10);
  GateInput input;
  input.x = at::randn({5, 10});
  EXPECT_EQ(pair.padded->forward(input).first.abs().sum().item<float>(), 0);
}

TEST(StaticMoeLayer, GradientsEqualTheDynamicLayers) {
  at::manual_seed(13);
  MoeLayerOptions options = small_layer({ZeroExpertKind::kConstant, ZeroExpertKind::kZero});
  options.gate.capacity_factor = 1.0;
  Pair pair = make_pair(options);
  require_gradients(*pair.dynamic);
  require_gradients(*pair.padded);
  const at::Tensor x = at::randn({24, 10}), weigh = at::randn({24, 10});
  const auto gradients = [&](MoeBlock& block) {
    GateInput input;
    input.x = x.clone().requires_grad_(true);
    input.training = true;
    block.forward(input).first.mul(weigh).sum().backward();
    TensorMap result = {{"x", input.x.grad()}};
    for (auto& [name, tensor] : tensors_of(block)) result.emplace(name, tensor.grad());
    return result;
  };
  const TensorMap expected = gradients(*pair.dynamic);
  for (const auto& [name, gradient] : gradients(*pair.padded)) {
    SCOPED_TRACE(name);
    expect_close(gradient, expected.at(name), 1e-4);
  }
}

}  // namespace
}  // namespace motley
