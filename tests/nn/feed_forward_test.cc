#include "motley/nn/feed_forward.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <map>

namespace motley {
namespace {

TEST(FeedForward, ComputesDownOfActivatedGateTimesUp) {
  for (const auto kind : {ActivationKind::kSwiGlu, ActivationKind::kGeGlu}) {
    FeedForward feed_forward(6, 10, {.kind = kind}, at::kFloat);
    std::map<std::string, at::Tensor> weights;
    feed_forward.visit("mlp.", [&](const std::string& name, at::Tensor& tensor, TensorRole) {
      tensor = at::randn(tensor.sizes());  // a visitor may replace the tensor
      weights[name] = tensor;
    });
    const auto x = at::randn({4, 6});
    const auto gate = at::linear(x, weights.at("mlp.gate_proj.weight"));
    const auto activated = kind == ActivationKind::kSwiGlu ? gate * at::sigmoid(gate) : at::gelu(gate);
    const auto expected = at::linear(activated * at::linear(x, weights.at("mlp.up_proj.weight")),
                                     weights.at("mlp.down_proj.weight"));
    // Another order of sums; the largest value may be anything from 5 to 100.
    const double largest = expected.abs().max().item<double>();
    EXPECT_LT((feed_forward.forward(x) - expected).abs().max().item<double>(), 2e-6 * largest);
  }
}

TEST(FeedForward, RefusesActivationsWithoutAGate) {
  EXPECT_THROW(FeedForward(6, 10, {.kind = ActivationKind::kRelu}, at::kFloat), c10::Error);
}

}  // namespace
}  // namespace motley
