#include "motley/nn/rotary.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

namespace motley {
namespace {

TEST(Rotary, RotatesPairsOfHalvesByHand) {
  const RotaryTable table(8, 4, 100.0);
  // head_dim 4: angles p * 1 and p * 100^-0.5 = p / 10; pairs (0, 2) and (1, 3).
  const auto x = at::tensor({1.0f, 2.0f, 3.0f, 4.0f}).view({1, 1, 4});
  const auto y = table.rotate(x, at::tensor({5}, at::kLong)).view({4});
  const double a = 5.0, b = 0.5;
  const double expected[] = {std::cos(a) - 3 * std::sin(a), 2 * std::cos(b) - 4 * std::sin(b),
                             3 * std::cos(a) + std::sin(a), 4 * std::cos(b) + 2 * std::sin(b)};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(y[i].item<double>(), expected[i], 1e-6);
}

TEST(Rotary, ScoresDependOnDistanceOnly) {
  const RotaryTable table(64, 16, 10000.0);
  const auto q = at::randn({1, 1, 16}), k = at::randn({1, 1, 16});
  const auto score = [&](int64_t m, int64_t n) {
    return (table.rotate(q, at::full({1}, m, at::kLong)) * table.rotate(k, at::full({1}, n, at::kLong)))
        .sum()
        .item<double>();
  };
  EXPECT_NEAR(score(3, 1), score(60, 58), 1e-4);
}

TEST(Rotary, GradientIsTheInverseRotation) {
  const RotaryTable table(32, 8, 10000.0);
  const auto positions = at::arange(20, at::kLong);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = at::randn({20, 3, 8}).to(dtype).requires_grad_();
    const auto dy = at::randn({20, 3, 8}).to(dtype);
    const auto y = table.rotate(x, positions);
    y.backward(dy);
    // A rotation keeps inner products: <y, dy> = <x, dx>.
    const auto inner = [](const at::Tensor& a, const at::Tensor& b) {
      return (a.detach().to(at::kDouble) * b.detach().to(at::kDouble)).sum().item<double>();
    };
    EXPECT_NEAR(inner(y, dy), inner(x, x.grad()), dtype == at::kFloat ? 1e-4 : 0.5);
    const auto back = table.rotate(x.grad().detach(), positions).to(at::kFloat);
    EXPECT_LT((back - dy.to(at::kFloat)).abs().max().item<double>(), dtype == at::kFloat ? 1e-5 : 0.05);
  }
}

TEST(Rotary, RefusesWhatDoesNotFit) {
  const RotaryTable table(4, 8, 10000.0);
  EXPECT_THROW(table.rotate(at::ones({1, 1, 8}), at::tensor({4}, at::kLong)), c10::Error);
  EXPECT_THROW(table.rotate(at::ones({1, 1, 8}), at::tensor({-1}, at::kLong)), c10::Error);
  EXPECT_THROW(table.rotate(at::ones({2, 1, 8}), at::tensor({1}, at::kLong)), c10::Error);
  EXPECT_THROW(table.rotate(at::ones({1, 1, 6}), at::tensor({1}, at::kLong)), c10::Error);
  EXPECT_THROW(RotaryTable(4, 7, 10000.0), c10::Error);
  EXPECT_EQ(table.rotate(at::ones({0, 1, 8}), at::empty({0}, at::kLong)).numel(), 0);
}

}  // namespace
}  // namespace motley
