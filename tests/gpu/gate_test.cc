// The gate on a GPU, fused, against the one on the CPU, made of ATen's operators.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>

#include "motley/ops/zero_experts.h"
#include "motley/routing/gates.h"
#include "tests/support/gpu.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"

namespace motley::test {
namespace {

using GateOnGpu = OnGpu;

GateOptions options_of(int64_t num_experts, int64_t top_k, int64_t num_zero) {
  GateOptions options;
  options.hidden_size = 48;
  options.num_experts = num_experts;
  options.num_experts_per_tok = top_k;
  for (int64_t z = 0; z < num_zero; ++z) {
    options.zero_experts.push_back(z % 2 == 0 ? ZeroExpertKind::kZero : ZeroExpertKind::kCopy);
  }
  options.balance_loss = BalanceLoss::kSwitch;
  options.balance_loss_coef = 0.1;
  options.router_z_loss_coef = 0.01;
  return options;
}

// The same gate twice; its tensors in `tensors`.
std::unique_ptr<Gate> gate_on(const GateOptions& options, at::Device device, Tensors& tensors) {
  auto gate = make_gate(options);
  uint64_t seed = 10;
  gate->visit("", [&](const std::string& name, at::Tensor& tensor, TensorRole role) {
    tensor = random_values(tensor.sizes(), at::kFloat, ++seed).mul(0.5).to(device);
    if (role == TensorRole::kParameter) tensor = leaf(tensor);
    tensors.push_back(tensor);
  });
  return gate;
}

at::Tensor loss_of(const Routing& routing, const at::Tensor& weight) {
  at::Tensor loss = routing.weights.mul(weight.to(routing.weights.device())).sum();
  for (const auto& auxiliary : routing.losses) loss = loss.add(auxiliary.value);
  return loss;
}

void check(const GateOptions& options, int64_t num_tokens, bool mask) {
  Tensors cpu_tensors, gpu_tensors;
  const auto cpu = gate_on(options, at::kCPU, cpu_tensors), gpu = gate_on(options, at::kCUDA, gpu_tensors);
  const at::Tensor x = random_values({num_tokens, options.hidden_size}, at::kFloat, 1);
  const at::Tensor previous = random_values({num_tokens, options.num_slots()}, at::kFloat, 2);
  const at::Tensor weight = random_values({num_tokens, options.num_experts_per_tok}, at::kFloat, 3);
  const auto input_on = [&](at::Device device) {
    GateInput input;
    input.x = leaf(x.to(device));
    input.previous_logits = leaf(previous.to(device));
    input.training = true;
    if (mask) input.token_mask = random_values({num_tokens}, at::kFloat, 4).gt(-0.5).to(device);
    return input;
  };
  const GateInput cpu_input = input_on(at::kCPU), gpu_input = input_on(at::kCUDA);
  const Routing expected = cpu->route(cpu_input), found = gpu->route(gpu_input);
  expect_close("logits", found.logits, expected.logits, 1e-5);
  EXPECT_TRUE(found.slots.cpu().equal(expected.slots));
  expect_close("weights", found.weights, expected.weights, 1e-5);
  EXPECT_TRUE(found.load.cpu().to(at::kDouble).equal(expected.load.to(at::kDouble)));
  EXPECT_EQ(found.dropped.item<double>(), expected.dropped.item<double>());
  ASSERT_EQ(found.losses.size(), expected.losses.size());
  for (size_t i = 0; i < found.losses.size(); ++i) {
    EXPECT_NEAR(found.losses[i].value.item<double>(), expected.losses[i].value.item<double>(), 1e-4);
  }
  const at::Tensor loss = loss_of(found, weight), cpu_loss = loss_of(expected, weight);
  const at::Tensor one = at::ones({}, at::kFloat);
  Tensors inputs = {gpu_input.x}, cpu_inputs = {cpu_input.x};
  for (size_t i = 0; i < gpu_tensors.size(); ++i) {
    if (!gpu_tensors[i].requires_grad()) continue;
    inputs.push_back(gpu_tensors[i]);
    cpu_inputs.push_back(cpu_tensors[i]);
  }
  const auto gradients_found = gradients(loss, inputs, one.cuda());
  const auto wanted = gradients(cpu_loss, cpu_inputs, one);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (wanted[i].defined())
      expect_close("gradient " + std::to_string(i), gradients_found[i], wanted[i], 1e-4);
  }
  // Without gradients, and so for few tokens with its own product.
  const at::NoGradGuard no_grad;
  const Routing inference = gpu->route(gpu_input);
  expect_close("logits of inference", inference.logits, expected.logits, 1e-5);
  expect_close("weights of inference", inference.weights, expected.weights, 1e-5);
}

TEST_F(GateOnGpu, AgreesWithTheCpu) {
  struct Size {
    int64_t num_experts, top_k, num_zero;
  };
  for (const Size& size : {Size{4, 2, 3}, Size{8, 1, 0}, Size{60, 8, 20}, Size{300, 6, 100}, Size{3, 4, 2}}) {
    for (const int64_t num_tokens : {1, 40, 700}) {
      for (const auto scoring : {Scoring::kSoftmax, Scoring::kStandardisedSoftmax}) {
        for (const auto normalisation :
             {WeightNormalisation::kNone, WeightNormalisation::kTopK, WeightNormalisation::kTopKExceptZero}) {
          if (normalisation == WeightNormalisation::kTopKExceptZero && size.num_zero == 0) continue;
          // The one weight of a normalised top-1 is 1, whatever the logits: its gradients are rounding.
          if (normalisation != WeightNormalisation::kNone && size.top_k == 1) continue;
          SCOPED_TRACE(std::to_string(size.num_experts) + " experts, " + std::to_string(num_tokens) +
                       " tokens, scoring " + std::to_string(static_cast<int>(scoring)) + " normalisation " +
                       std::to_string(static_cast<int>(normalisation)));
          GateOptions options = options_of(size.num_experts, size.top_k, size.num_zero);
          options.scoring = scoring;
          options.weight_normalisation = normalisation;
          options.gating_residual = size.num_zero > 0;
          check(options, num_tokens, /*mask=*/false);
        }
      }
    }
  }
}

TEST_F(GateOnGpu, AgreesWithTheCpuWithMaskBiasScaleAndCapacity) {
  GateOptions options = options_of(6, 2, 2);
  check(options, 200, /*mask=*/true);
  options.routed_scaling_factor = 2.5;
  options.selection_bias = true;
  options.selection_bias_update_rate = 0.01;
  check(options, 200, /*mask=*/false);
  options = options_of(6, 2, 2);
  options.capacity_factor = 0.7;
  check(options, 200, /*mask=*/false);
}

TEST_F(GateOnGpu, TakesTheLowerOfEqualSlots) {
  const GateOptions options = options_of(40, 3, 0);
  auto gate = make_gate(options);
  gate->visit("", [](const std::string&, at::Tensor& tensor, TensorRole) { tensor = tensor.cuda(); });
  GateInput input;
  input.x = at::full({5, 48}, 1.0F).cuda();
  const Routing routing = gate->route(input);  // all logits are 0
  for (int64_t k = 0; k < 3; ++k) EXPECT_TRUE(routing.slots.select(1, k).eq(k).all().item<bool>());
}

}  // namespace
}  // namespace motley::test
