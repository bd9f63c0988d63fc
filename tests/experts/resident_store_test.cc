#include "motley/experts/resident_store.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "motley/base/error.h"
#include "motley/ops/expert_ffn.h"

namespace motley {
namespace {

ResidentStoreOptions small_options() {
  ResidentStoreOptions options;
  options.num_experts = 3;
  options.hidden_size = 4;
  options.expert_width = 5;
  return options;
}

std::map<std::string, at::Tensor> tensors_of(ResidentStore& store) {
  std::map<std::string, at::Tensor> tensors;
  store.visit("experts.", [&](const std::string& name, at::Tensor& tensor, TensorRole role) {
    EXPECT_EQ(role, TensorRole::kParameter);
    tensors.emplace(name, tensor);
  });
  return tensors;
}

RoutingPlan some_plan() {
  return ops::routing_plan(at::tensor({0, 2, 2, 0, 1, -1}, at::kInt).view({3, 2}), 3);
}

TEST(ResidentStore, ShapesAndNamesFollowHuggingFace) {
  ResidentStoreOptions options = small_options();
  ResidentStore gated(options);
  auto tensors = tensors_of(gated);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors.at("experts.gate_up_proj").sizes(), (std::vector<int64_t>{3, 10, 4}));
  EXPECT_EQ(tensors.at("experts.down_proj").sizes(), (std::vector<int64_t>{3, 4, 5}));
  EXPECT_EQ(gated.num_experts(), 3);

  options.activation.kind = ActivationKind::kRelu;
  options.bias = true;
  ResidentStore plain(options);
  tensors = tensors_of(plain);
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors.at("experts.gate_up_proj").sizes(), (std::vector<int64_t>{3, 5, 4}));
  EXPECT_EQ(tensors.at("experts.gate_up_proj_bias").sizes(), (std::vector<int64_t>{3, 5}));
  EXPECT_EQ(tensors.at("experts.down_proj_bias").sizes(), (std::vector<int64_t>{3, 4}));
}

TEST(ResidentStore, OneWaveOfTheWeightsThatStandThere) {
  ResidentStore store(small_options());
  const auto before = store.acquire(some_plan());
  EXPECT_EQ(before->num_waves(), 1);
  EXPECT_FALSE(before->requires_grad());
  const at::Tensor loaded = at::randn({3, 10, 4});
  store.visit("", [&](const std::string& name, at::Tensor& tensor, TensorRole) {
    if (name == "gate_up_proj") tensor = loaded;
  });
  EXPECT_TRUE(store.acquire(some_plan())->acquire(0, Pass::kForward).gate_up.is_same(loaded));
  EXPECT_FALSE(before->acquire(0, Pass::kBackward).gate_up.is_same(loaded));
}

TEST(ResidentStore, GradientsAddUpInTheParametersThatWantThem) {
  ResidentStore store(small_options());
  auto tensors = tensors_of(store);
  at::Tensor gate_up = tensors.at("experts.gate_up_proj"), down = tensors.at("experts.down_proj");
  gate_up.requires_grad_(true);
  const auto source = store.acquire(some_plan());
  EXPECT_TRUE(source->requires_grad());
  EXPECT_FALSE(source->gradient_buffers(0).gate_up.defined());  // the first gradient becomes .grad itself
  const at::Tensor first = at::ones_like(gate_up).detach();
  source->accumulate_gradients(0, {first, at::ones_like(down), {}, {}});
  EXPECT_TRUE(gate_up.grad().is_same(first));
  EXPECT_FALSE(down.grad().defined());

  const ExpertWeightGradients buffers = source->gradient_buffers(0);
  ASSERT_TRUE(buffers.gate_up.is_same(first));
  EXPECT_FALSE(buffers.down.defined());
  buffers.gate_up.add_(1);
  source->accumulate_gradients(0, buffers);  // added in place: not again
  EXPECT_TRUE(at::allclose(gate_up.grad(), at::ones_like(first).mul(2)));
  source->accumulate_gradients(0, {at::ones_like(first), {}, {}, {}});
  EXPECT_TRUE(at::allclose(gate_up.grad(), at::ones_like(first).mul(3)));
}

// Two backward passes of bf16 experts: each adds its gradient in fp32, so that the sum of equal ones is
// exactly twice the first.
TEST(ResidentStore, BackwardAddsIntoFp32GradientsOfBf16Weights) {
  ResidentStoreOptions options = small_options();
  options.dtype = at::kBFloat16;
  options.fp32_gradients = true;
  ResidentStore store(options);
  auto tensors = tensors_of(store);
  for (auto& [name, tensor] : tensors) tensor.normal_().requires_grad_(true);
  const at::Tensor x = at::randn({3, 4}).to(at::kBFloat16), weights = at::randn({3, 2});
  const RoutingPlan plan = some_plan();
  const auto run = [&] { ops::expert_ffn(x, weights, plan, store.acquire(plan)).sum().backward(); };
  run();
  std::map<std::string, at::Tensor> once;
  for (auto& [name, tensor] : tensors) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_EQ(tensor.grad().scalar_type(), at::kFloat) << name;
    EXPECT_GT(tensor.grad().abs().sum().item<float>(), 0) << name;
    once[name] = tensor.grad().clone();
  }
  run();
  for (auto& [name, tensor] : tensors) EXPECT_TRUE(tensor.grad().equal(once.at(name).mul(2))) << name;
}

TEST(ResidentStore, ErrorsNameTheOption) {
  const auto expect_error = [](const char* option, const auto& spoil) {
    ResidentStoreOptions options = small_options();
    spoil(options);
    try {
      ResidentStore store(options);
      ADD_FAILURE() << option;
    } catch (const UserError& error) {
      EXPECT_EQ(std::string(error.what()).rfind(option, 0), 0u) << error.what();
    }
  };
  expect_error("num_experts", [](auto& o) { o.num_experts = 0; });
  expect_error("hidden_size", [](auto& o) { o.hidden_size = -1; });
  expect_error("moe_intermediate_size", [](auto& o) { o.expert_width = 0; });
  expect_error("fp32_expert_gradients", [](auto& o) { o.fp32_gradients = true; });
}

}  // namespace
}  // namespace motley
