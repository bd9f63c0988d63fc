#include "motley/layers/shared_expert_block.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>

#include "tests/layers/layer_support.h"

namespace motley {
namespace {

at::Tensor shared_reference(const at::Tensor& x, const TensorMap& tensors, const std::string& prefix) {
  const auto weight = [&](const std::string& name) {
    return tensors.at(prefix + name + ".weight").to(at::kDouble);
  };
  const at::Tensor in = x.to(at::kDouble);
  return at::linear(at::silu(at::linear(in, weight("gate_proj"))).mul(at::linear(in, weight("up_proj"))),
                    weight("down_proj"));
}

TEST(SharedExpertBlock, AddsTheSharedExpertToTheRoutedOnes) {
  at::manual_seed(21);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    MoeLayerOptions options = small_layer({ZeroExpertKind::kCopy});
    options.dtype = dtype;
    options.shared_expert_width = 6;
    options.shared_expert_names = SharedExpertNames::kDeepseek;
    auto block = make_moe_layer(options, seeded(0.5));
    const TensorMap tensors = tensors_of(*block);
    EXPECT_FALSE(tensors.contains("mlp.shared_expert_gate.weight"));
    GateInput input;
    input.x = at::randn({20, 10}).to(dtype);
    const auto [y, routing] = block->forward(input);
    EXPECT_EQ(y.scalar_type(), dtype);
    const at::Tensor expected = reference_forward(input.x, routing, options, tensors)
                                    .add(shared_reference(input.x, tensors, "mlp.shared_experts."));
    expect_close(y, expected, dtype == at::kFloat ? 1e-5 : 2e-2);
    const at::NoGradGuard inference;
    expect_close(block->forward(input).first, expected, dtype == at::kFloat ? 1e-5 : 2e-2);
  }
}

TEST(SharedExpertBlock, QwensGateScalesTheSharedExpert) {
  at::manual_seed(22);
  MoeLayerOptions options = small_layer();
  options.shared_expert_width = 6;
  options.shared_expert_gate = true;
  auto block = make_moe_layer(options, seeded(0.5));
  const TensorMap tensors = tensors_of(*block);
  EXPECT_EQ(tensors.at("mlp.shared_expert_gate.weight").sizes(), (std::vector<int64_t>{1, 10}));
  GateInput input;
  input.x = at::randn({20, 10});
  const auto [y, routing] = block->forward(input);
  const at::Tensor scale =
      at::linear(input.x.to(at::kDouble), tensors.at("mlp.shared_expert_gate.weight").to(at::kDouble))
          .sigmoid();
  expect_close(y,
               reference_forward(input.x, routing, options, tensors)
                   .add(shared_reference(input.x, tensors, "mlp.shared_expert.").mul(scale)),
               1e-5);
}

TEST(SharedExpertBlock, EveryParameterGetsAGradient) {
  MoeLayerOptions options = small_layer({ZeroExpertKind::kConstant});
  options.shared_expert_width = 6;
  options.shared_expert_gate = true;
  auto block = make_moe_layer(options, seeded(0.5));
  require_gradients(*block);
  GateInput input;
  input.x = at::randn({64, 10});
  block->forward(input).first.square().sum().backward();
  const TensorMap tensors = tensors_of(*block);
  EXPECT_EQ(tensors.size(), 9u);
  for (const auto& [name, tensor] : tensors) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_GT(tensor.grad().abs().sum().item<float>(), 0) << name;
  }
}

}  // namespace
}  // namespace motley
