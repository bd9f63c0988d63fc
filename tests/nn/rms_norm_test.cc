#include "motley/nn/rms_norm.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

namespace motley {
namespace {

// The formula in fp64, by operators that differentiate themselves.
at::Tensor reference(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto wide = x.to(at::kDouble);
  return wide * at::rsqrt(wide.pow(2).mean(-1, true) + eps) * weight.to(at::kDouble);
}

struct Case {
  at::ScalarType dtype;
  double tolerance;
};
constexpr Case kCases[] = {{at::kFloat, 2e-6}, {at::kBFloat16, 8e-3}};

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found.to(at::kDouble) - expected.to(at::kDouble)).abs().max() /
          expected.to(at::kDouble).abs().max().clamp_min(1e-12))
      .item<double>();
}

TEST(RmsNorm, MatchesTheFormulaAndItsGradients) {
  at::manual_seed(1);
  for (const auto& [dtype, tolerance] : kCases) {
    for (const auto& sizes : {std::vector<int64_t>{130, 48}, {1, 5}, {3, 2, 17}}) {
      const auto x = (at::randn(sizes) * 3).to(dtype).requires_grad_();
      const auto weight = (at::rand({sizes.back()}) + 0.5).to(dtype).requires_grad_();
      const auto dy = at::randn(sizes).to(dtype);
      const auto y = rms_norm(x, weight, 1e-6);
      y.backward(dy);
      const auto x64 = x.detach().to(at::kDouble).requires_grad_();
      const auto weight64 = weight.detach().to(at::kDouble).requires_grad_();
      const auto y64 = reference(x64, weight64, 1e-6);
      y64.backward(dy.to(at::kDouble));
      EXPECT_EQ(y.scalar_type(), dtype);
      EXPECT_LT(relative_error(y.detach(), y64.detach()), tolerance);
      EXPECT_LT(relative_error(x.grad(), x64.grad()), tolerance * 4);
      EXPECT_LT(relative_error(weight.grad(), weight64.grad()), tolerance * 4);
    }
  }
}

TEST(RmsNorm, TakesNoRowsStridedInputAndExpandedGradients) {
  const auto weight = at::ones({8}).requires_grad_();
  EXPECT_EQ(rms_norm(at::empty({0, 8}), weight, 1e-6).sizes(), at::IntArrayRef({0, 8}));

  const auto wide = at::randn({8, 5}).requires_grad_();
  const auto y = rms_norm(wide.t(), weight, 1e-6);
  EXPECT_LT(relative_error(y.detach(), reference(wide.detach().t(), weight.detach(), 1e-6)), 1e-6);
  y.sum().backward();  // the gradient of a sum is one expanded number
  const auto wide64 = wide.detach().to(at::kDouble).requires_grad_();
  reference(wide64.t(), weight.detach(), 1e-6).sum().backward();
  EXPECT_LT(relative_error(wide.grad(), wide64.grad()), 1e-5);
}

TEST(RmsNorm, WeightGradientDoesNotDependOnThreads) {
  const auto x = at::randn({1000, 33}), dy = at::randn({1000, 33}), weight = at::rand({33});
  const auto inverse = std::get<1>(rms_norm_forward(x, weight, 1e-6));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto [dx1, dw1] = rms_norm_backward(dy, x, weight, inverse);
  at::set_num_threads(3);
  const auto [dx3, dw3] = rms_norm_backward(dy, x, weight, inverse);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(dx1, dx3));
  EXPECT_TRUE(at::equal(dw1, dw3));
}

TEST(RmsNorm, RefusesWhatDoesNotFit) {
  EXPECT_THROW(rms_norm(at::ones({2, 8}), at::ones({7}), 1e-6), c10::Error);
  EXPECT_THROW(rms_norm(at::ones({2, 8}), at::ones({8}, at::kBFloat16), 1e-6), c10::Error);
  EXPECT_THROW(rms_norm(at::ones({2, 8}, at::kDouble), at::ones({8}, at::kDouble), 1e-6), c10::Error);
}

}  // namespace
}  // namespace motley
