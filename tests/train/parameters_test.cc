#include "motley/train/parameters.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/tiny_lm.h"

namespace motley {
namespace {

TEST(WeightDecays, PassesOverNormsBiasesAndVectors) {
  EXPECT_TRUE(weight_decays("model.embed_tokens.weight", 2));
  EXPECT_TRUE(weight_decays("model.layers.0.mlp.experts.gate_up_proj", 3));
  EXPECT_TRUE(weight_decays("model.layers.0.mlp.gate.weight", 2));
  EXPECT_TRUE(weight_decays("model.layers.0.mlp.zero_experts.constant_gate", 3));
  EXPECT_FALSE(weight_decays("model.layers.0.mlp.zero_experts.constant", 2));
  EXPECT_FALSE(weight_decays("model.layers.0.mlp.experts.gate_up_proj_bias", 2));
  EXPECT_FALSE(weight_decays("model.layers.0.input_layernorm.weight", 1));
  EXPECT_FALSE(weight_decays("model.norm.weight", 1));
}

TEST(ClipGradients, ScalesToTheNorm) {
  std::vector<at::Tensor> gradients = {at::full({4}, 3.0), at::Tensor(), at::full({4}, 4.0)};
  EXPECT_NEAR(global_norm(gradients), 10.0, 1e-6);
  clip_gradients(gradients, 10.0, 2.0);
  EXPECT_NEAR(global_norm(gradients), 2.0, 1e-6);
  EXPECT_NEAR(gradients[0][0].item<double>(), 0.6, 1e-6);
}

TEST(GlobalNorm, IsFiniteWhereTheGradientsAre) {
  const std::vector<at::Tensor> gradients = {at::full({4}, 1e30), at::full({4}, 1.0)};
  EXPECT_NEAR(global_norm(gradients), 2e30, 1e25);
  EXPECT_FALSE(std::isfinite(global_norm({at::full({4}, INFINITY)})));
  EXPECT_FALSE(std::isfinite(global_norm({at::full({4}, NAN)})));
}

TEST(ClipGradients, LeavesSmallGradientsAndNoLimitAlone) {
  std::vector<at::Tensor> gradients = {at::full({4}, 0.5)};
  clip_gradients(gradients, 1.0, 2.0);
  clip_gradients(gradients, 1.0, 0.0);
  EXPECT_TRUE(at::equal(gradients[0], at::full({4}, 0.5)));
}

TEST(GradientSum, AddsBf16PassesInFp32) {
  TinyLm model(at::kBFloat16);
  const auto parameters = trained_parameters(model);
  ASSERT_EQ(parameters.size(), 4u);
  GradientSum sum(parameters, 3);
  // In bf16 256 + 1 is 256 again.
  for (const double value : {256.0, 1.0, 1.0}) {
    parameters[0].tensor.mutable_grad() = at::full(parameters[0].tensor.sizes(), value, at::kBFloat16);
    sum.add_pass();
  }
  const auto gradients = sum.take();
  EXPECT_EQ(gradients[0].scalar_type(), at::kFloat);
  EXPECT_EQ(gradients[0][0][0].item<double>(), 258.0);
  EXPECT_FALSE(gradients[1].defined());
  EXPECT_FALSE(parameters[0].tensor.grad().defined());
}

}  // namespace
}  // namespace motley
