#include "motley/train/adamw.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/run_place.h"
#include "tests/train/tiny_lm.h"

namespace motley {
namespace {

constexpr AdamWOptions kOptions{0.9, 0.95, 1e-8, 0.1};

std::vector<at::Tensor> gradients_of_step(const AdamW& optimizer, int step) {
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : optimizer.parameters()) {
    const at::Tensor count = at::arange(parameter.tensor.numel(), at::kDouble);
    gradients.push_back(
        count.mul(0.37 * step).sin().reshape(parameter.tensor.sizes()).to(parameter.tensor.dtype()));
  }
  return gradients;
}

// The algorithm in fp64; decay is scaled by the learning rate.
at::Tensor reference(at::Tensor weights, const std::vector<at::Tensor>& gradients, double rate,
                     double decay) {
  weights = weights.to(at::kDouble);
  at::Tensor first = at::zeros_like(weights), second = at::zeros_like(weights);
  for (size_t i = 0; i < gradients.size(); ++i) {
    const at::Tensor g = gradients[i].to(at::kDouble);
    const auto t = static_cast<double>(i + 1);
    weights = weights.mul(1 - rate * decay);
    first = first.mul(kOptions.beta1).add(g, 1 - kOptions.beta1);
    second = second.mul(kOptions.beta2).add(g.mul(g), 1 - kOptions.beta2);
    const at::Tensor m = first.div(1 - std::pow(kOptions.beta1, t));
    const at::Tensor v = second.div(1 - std::pow(kOptions.beta2, t));
    weights = weights.sub(m.div(v.sqrt().add(kOptions.epsilon)), rate);
  }
  return weights;
}

TEST(AdamW, FollowsTheAlgorithmWithAndWithoutDecay) {
  TinyLm model;
  AdamW optimizer(trained_parameters(model), kOptions);
  const at::Tensor block = model.block.detach().clone(), bias = model.bias.detach().clone();
  std::vector<at::Tensor> of_block, of_bias;
  for (int step = 1; step <= 5; ++step) {
    const auto gradients = gradients_of_step(optimizer, step);
    of_block.push_back(gradients[1]);
    of_bias.push_back(gradients[2]);
    optimizer.step(gradients, 0.01, step);
  }
  EXPECT_TRUE(at::allclose(model.block.to(at::kDouble), reference(block, of_block, 0.01, 0.1), 1e-5, 1e-7));
  EXPECT_TRUE(at::allclose(model.bias.to(at::kDouble), reference(bias, of_bias, 0.01, 0.0), 1e-5, 1e-7));
}

TEST(AdamW, KeepsFp32MasterWeightsForBf16) {
  TinyLm model(at::kBFloat16);
  AdamW optimizer(trained_parameters(model), kOptions);
  const at::Tensor before = model.block.detach().clone();
  std::vector<at::Tensor> gradients;
  for (int step = 1; step <= 20; ++step) {
    // Updates far below a bf16 step of the weights add up in the master weights.
    const auto of_step = gradients_of_step(optimizer, 3);
    gradients.push_back(of_step[1]);
    optimizer.step(of_step, 1e-4, step);
  }
  const at::Tensor expected = reference(before, gradients, 1e-4, 0.1);
  EXPECT_TRUE(at::allclose(model.block.to(at::kDouble), expected, 4e-3, 1e-6));
  EXPECT_FALSE(at::equal(model.block, before));
  for (const auto& [name, tensor] : optimizer.state()) {
    if (name != "model.layers.0.mlp.weight.master") continue;
    EXPECT_TRUE(at::allclose(tensor.to(at::kDouble), expected, 1e-5, 1e-7));
  }
}

TEST(AdamW, LeavesParametersWithoutAGradientAlone) {
  TinyLm model;
  AdamW optimizer(trained_parameters(model), kOptions);
  const at::Tensor before = model.block.detach().clone();
  auto gradients = gradients_of_step(optimizer, 1);
  gradients[1] = at::Tensor();
  optimizer.step(gradients, 0.01, 1);
  EXPECT_TRUE(at::equal(model.block, before));
}

TEST(AdamW, StateRoundTripsThroughAFile) {
  const RunPlace place;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    TinyLm model(dtype), other(dtype);
    AdamW optimizer(trained_parameters(model), kOptions), restored(trained_parameters(other), kOptions);
    optimizer.step(gradients_of_step(optimizer, 1), 0.01, 1);
    const auto folder = place.path() / std::string(c10::toString(dtype));
    std::filesystem::create_directory(folder);
    write_tensor_folder(folder, optimizer.state(), "optimizer");
    restored.load(TensorFolder(folder, "optimizer"));
    const auto a = optimizer.state(), b = restored.state();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].second, b[i].second)) << a[i].first;
  }
}

}  // namespace
}  // namespace motley
