#include "motley/layers/static_moe_layer.h"

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
    EXPECT_GT(routing.dropped.item<float>(), 0) << factor;
    expect_same(pair, input, 1e-5);
    input.training = false;  // C = T
    EXPECT_EQ(pair.padded->forward(input).second.dropped.item<float>(), 0);
    expect_same(pair, input, 1e-5);
  }
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
