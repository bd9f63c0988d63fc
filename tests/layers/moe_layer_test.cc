#include "motley/layers/moe_layer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include "motley/experts/resident_store.h"
#include "motley/parallel/local_dispatcher.h"
#include "motley/routing/gates.h"
#include "tests/layers/layer_support.h"

namespace motley {
namespace {

const std::vector<ZeroExpertKind> kAllKinds = {ZeroExpertKind::kConstant, ZeroExpertKind::kCopy,
                                               ZeroExpertKind::kZero, ZeroExpertKind::kConstant};

GateInput tokens(int64_t num_tokens, at::ScalarType dtype = at::kFloat) {
  GateInput input;
  input.x = at::randn({num_tokens, 10}).to(dtype);
  return input;
}

TEST(MoeLayer, EqualsTheDefinition) {
  at::manual_seed(3);
  for (const bool bias : {false, true}) {
    for (const auto& kinds : {std::vector<ZeroExpertKind>{}, {ZeroExpertKind::kZero}, kAllKinds}) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        MoeLayerOptions options = small_layer(kinds);
        options.expert_bias = bias;
        options.dtype = dtype;
        auto layer = make_moe_layer(options, seeded(0.5));
        for (auto& [name, tensor] : tensors_of(*layer)) {
          if (name.find("bias") != std::string::npos) tensor.normal_();
        }
        const GateInput input = tokens(40, dtype);
        const auto [y, routing] = layer->forward(input);
        EXPECT_EQ(y.scalar_type(), dtype);
        const double tolerance = dtype == at::kFloat ? 1e-5 : 2e-2;
        const at::Tensor expected = reference_forward(input.x, routing, options, tensors_of(*layer));
        expect_close(y, expected, tolerance);
        const at::NoGradGuard inference;  // sums everything in one pass
        expect_close(layer->forward(input).first, expected, tolerance);
      }
    }
  }
}

TEST(MoeLayer, FourPhasesAreForward) {
  MoeLayerOptions options = small_layer(kAllKinds);
  auto block = make_moe_layer(options, seeded(0.5));
  const auto& layer = dynamic_cast<MoeLayer&>(*block);
  EXPECT_EQ(layer.num_experts(), 4);
  EXPECT_EQ(layer.num_slots(), 8);
  const GateInput input = tokens(12);
  MoeLayer::InFlight first = layer.start(input.x, layer.route(input));
  MoeLayer::InFlight second = layer.start(input.x, layer.route(input));  // two calls under way at once
  layer.compute(second);
  layer.compute(first);
  const at::Tensor y = layer.forward(input).first;
  EXPECT_TRUE(layer.finish(first).equal(y));
  EXPECT_TRUE(layer.finish(second).equal(y));
}

TEST(MoeLayer, GradientsEqualFiniteDifferences) {
  at::manual_seed(5);
  MoeLayerOptions options = small_layer(kAllKinds);
  options.expert_bias = true;
  options.gate.gating_residual = true;
  options.gate.weight_normalisation = WeightNormalisation::kTopK;
  auto layer = make_moe_layer(options, seeded(0.5));
  require_gradients(*layer);
  GateInput input = tokens(400);
  input.previous_logits = at::randn({400, 8});
  // Those tokens whose choice is clear enough to survive a small step.
  const at::Tensor logits =
      std::get<0>(layer->forward(input).second.logits.detach().sort(1, /*descending=*/true));
  const at::Tensor gaps = logits.narrow(1, 0, 2).sub(logits.narrow(1, 1, 2));
  const at::Tensor kept = gaps.amin(1).gt(0.2).nonzero().flatten().narrow(0, 0, 8);
  input.x = input.x.index_select(0, kept).requires_grad_(true);
  input.previous_logits = input.previous_logits.index_select(0, kept);
  const at::Tensor weigh = at::randn({8, 10});
  const at::Tensor slots = layer->forward(input).second.slots;
  const auto objective = [&] {
    const auto [y, routing] = layer->forward(input);
    EXPECT_TRUE(routing.slots.equal(slots)) << "the step changes the choice: take a smaller one";
    return y.mul(weigh).sum();
  };
  objective().backward();

  TensorMap variables = tensors_of(*layer);
  variables.emplace("x", input.x);
  EXPECT_EQ(variables.size(), 9u);
  const at::NoGradGuard no_grad;
  for (auto& [name, variable] : variables) {
    ASSERT_TRUE(variable.grad().defined()) << name;
    const at::Tensor direction = at::randn(variable.sizes());
    const double step = 1e-3;
    variable.add_(direction, step);
    const double above = objective().item<double>();
    variable.add_(direction, -2 * step);
    const double below = objective().item<double>();
    variable.add_(direction, step);
    const double expected = (above - below) / (2 * step);
    EXPECT_NEAR(variable.grad().mul(direction).sum().item<double>(), expected,
                1e-2 * (1 + std::abs(expected)))
        << name;
  }
}

// The experts' weights are not saved by the graph; changing them under it must not give wrong gradients.
TEST(MoeLayer, BackwardRefusesExpertsThatChangedSinceForward) {
  MoeLayerOptions options = small_layer();
  options.expert_bias = true;
  for (const char* name : {"gate_up_proj", "down_proj", "gate_up_proj_bias", "down_proj_bias"}) {
    auto layer = make_moe_layer(options, seeded(0.5));
    require_gradients(*layer);
    at::Tensor weight = tensors_of(*layer).at(std::string("mlp.experts.") + name).detach();
    weight.mul_(2);  // before forward: no matter
    const GateInput input = tokens(6);
    layer->forward(input).first.sum().backward();
    const at::Tensor y = layer->forward(input).first;
    weight.mul_(2);
    try {
      y.sum().backward();
      ADD_FAILURE() << name;
    } catch (const c10::Error& error) {
      const std::string message = error.what_without_backtrace();
      EXPECT_NE(message.find(std::string("expected ") + name + " in backward"), std::string::npos) << message;
    }
  }
}

TEST(MoeLayer, RunsInInferenceMode) {
  const c10::InferenceMode inference;  // its tensors have no version
  auto layer = make_moe_layer(small_layer(), seeded(0.5));
  EXPECT_EQ(layer->forward(tokens(6)).first.sizes(), (std::vector<int64_t>{6, 10}));
}

TEST(MoeLayer, TokensThatChooseOnlyZeroExpertsGetZeros) {
  MoeLayerOptions options = small_layer({ZeroExpertKind::kZero, ZeroExpertKind::kZero});
  options.gate.selection_bias = true;
  auto layer = make_moe_layer(options, seeded(0.5));
  TensorMap tensors = tensors_of(*layer);
  tensors.at("mlp.gate.e_score_correction_bias").narrow(0, 4, 2).fill_(10);
  const auto [y, routing] = layer->forward(tokens(5));
  EXPECT_EQ(routing.load.narrow(0, 0, 4).sum().item<int64_t>(), 0);
  EXPECT_EQ(y.abs().sum().item<float>(), 0);
}

TEST(MoeLayer, NoTokens) {
  auto layer = make_moe_layer(small_layer(kAllKinds), seeded(0.5));
  EXPECT_EQ(layer->forward(tokens(0)).first.sizes(), (std::vector<int64_t>{0, 10}));
}

TEST(MoeLayer, RefusesAGateOfOtherSlots) {
  GateOptions gate = small_layer().gate;
  ResidentStoreOptions store;
  store.num_experts = 3;
  store.hidden_size = 10;
  store.expert_width = 7;
  EXPECT_THROW(MoeLayer(make_gate(gate), std::make_unique<ResidentStore>(store),
                        std::make_shared<LocalDispatcher>(), ZeroExperts{}),
               c10::Error);
}

}  // namespace
}  // namespace motley
