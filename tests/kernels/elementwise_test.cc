#include <algorithm>
#include <limits>

#include "tests/kernels/support.h"

namespace motley::kernels::testing {
namespace {

class ElementwiseTest : public KernelsTest {};

constexpr float kAlpha = 1.702f, kLimit = 1.501f;  // no bf16 number: no kink among the inputs

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

double activation(Activation kind, double g, double u) {
  switch (kind) {
    case Activation::kSwiGlu:
      return g * sigmoid(g) * u;
    case Activation::kGeGlu:
      return gelu(g) * u;
    case Activation::kClampedSwiGlu: {
      const double gate = std::min<double>(g, kLimit);
      return gate * sigmoid(kAlpha * gate) * (std::clamp<double>(u, -kLimit, kLimit) + 1);
    }
    case Activation::kGelu:
      return gelu(g);
    case Activation::kRelu:
      return std::max(g, 0.0);
    case Activation::kSilu:
      return g * sigmoid(g);
  }
  return 0;
}

constexpr Activation kAll[] = {Activation::kSwiGlu, Activation::kGeGlu, Activation::kClampedSwiGlu,
                               Activation::kGelu,   Activation::kRelu,  Activation::kSilu};

TEST_P(ElementwiseTest, Activations) {
  for (const Activation kind : kAll) {
    const ActivationSpec spec{kind, kAlpha, kLimit};
    for (const int64_t count : {1, 15, 16, 37}) {
      std::vector<float> gate(count), up(count), a(count);
      for (int64_t i = 0; i < count; ++i) {
        gate[i] = static_cast<float>(12.0 * std::sin(3.1 * i + 1));
        up[i] = static_cast<float>(3.0 * std::cos(2.3 * i));
      }
      gate[0] = -200;  // saturates, and gives no NaN
      kernels().activate(spec, gate.data(), up.data(), count, a.data());
      for (int64_t i = 0; i < count; ++i) {
        const double expected = activation(kind, gate[i], up[i]);
        ASSERT_NEAR(a[i], expected, 2e-6 * (1 + std::fabs(gate[i] * up[i]))) << static_cast<int>(kind) << i;
      }
    }
  }
}

TEST_P(ElementwiseTest, ActivationGradients) {
  constexpr double kStep = 1e-5;
  for (const Activation kind : kAll) {
    const ActivationSpec spec{kind, kAlpha, kLimit};
    for (const int64_t count : {1, 16, 61}) {
      const Data gate(type(), count, 51), up(type(), count, 52), d(DType::kFloat32, count, 53);
      Data dgate(type(), count, 54), dup(type(), count, 55), activated(type(), count, 56);
      std::vector<float> da(count);
      for (int64_t i = 0; i < count; ++i) da[i] = static_cast<float>(d[i]);
      constexpr float kWeight = 0.75f;
      const float product =
          kernels().activate_backward(spec, da.data(), type(), gate.at(0), up.at(0), kWeight, count,
                                      dgate.at(0), dup.at(0), activated.at(0));
      double expected_product = 0;
      for (int64_t i = 0; i < count; ++i) {
        const double g = gate[i], u = up[i], a = activation(kind, g, u);
        const double slope = (activation(kind, g + kStep, u) - activation(kind, g - kStep, u)) / (2 * kStep);
        const double up_slope =
            (activation(kind, g, u + kStep) - activation(kind, g, u - kStep)) / (2 * kStep);
        const double t = type() == DType::kFloat32 ? 4e-6 : 4.1e-3;
        EXPECT_NEAR(activated[i], kWeight * a, t * (1 + std::fabs(a)));
        EXPECT_NEAR(dgate[i], kWeight * da[i] * slope, t * (1 + std::fabs(da[i] * slope)));
        if (spec.gated()) {
          EXPECT_NEAR(dup[i], kWeight * da[i] * up_slope, t * (1 + std::fabs(da[i] * up_slope)));
        }
        expected_product += da[i] * a;
      }
      EXPECT_NEAR(product, expected_product, 1e-5 * (1 + static_cast<double>(count)));
    }
  }
}

TEST_P(ElementwiseTest, ConvertRoundsToNearestEvenAndKeepsNan) {
  const float values[] = {1.0f, 1.00390625f, 1.01171875f, -1.00390625f, 3.0e38f,
                          0.0f, -0.0f,       65280.5f,    1e-3f};
  constexpr int64_t kCount = sizeof values / sizeof *values;
  uint16_t rounded[kCount];
  kernels().convert(DType::kFloat32, values, kCount, DType::kBFloat16, rounded);
  for (int64_t i = 0; i < kCount; ++i) EXPECT_EQ(rounded[i], bf16_bits(values[i])) << values[i];
  const float special[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  kernels().convert(DType::kFloat32, special, 2, DType::kBFloat16, rounded);
  EXPECT_TRUE(std::isnan(bf16_value(rounded[0])));
  EXPECT_TRUE(std::isinf(bf16_value(rounded[1])));
}

TEST_P(ElementwiseTest, StoreAddsAndRoundsOnce) {
  for (const int64_t count : {1, 16, 23}) {
    const Data c(DType::kFloat32, count, 61);
    std::vector<float> values(count);
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(c[i]);
    for (const bool accumulate : {false, true}) {
      Data out(type(), count, 62);
      const Data before = out;
      kernels().store(values.data(), count, type(), out.at(0), accumulate);
      for (int64_t i = 0; i < count; ++i) {
        const float sum = values[i] + (accumulate ? static_cast<float>(before[i]) : 0.0f);
        ASSERT_EQ(out[i], type() == DType::kFloat32 ? sum : bf16_value(bf16_bits(sum)));
      }
    }
  }
}

TEST_P(ElementwiseTest, WeightedSum) {
  for (const int64_t num_rows : {0, 1, 2, 8}) {
    for (const int64_t width : {1, 16, 63, 300}) {
      const Data rows(type(), num_rows * width, 71);
      const float weights[] = {0.5f, -2.0f, 0.25f, 1.0f, 3.0f, 0.125f, -0.5f, 2.0f};
      for (const bool weighted : {false, true}) {
        for (const DType out_type : {DType::kFloat32, type()}) {
          Data out(out_type, width, 72);
          kernels().weighted_sum(type(), rows.rows(num_rows, width).data(), weighted ? weights : nullptr,
                                 num_rows, 0, width, out_type, out.at(0), false);
          for (int64_t i = 0; i < width; ++i) {
            double expected = 0;
            for (int64_t n = 0; n < num_rows; ++n)
              expected += (weighted ? weights[n] : 1) * rows[n * width + i];
            ASSERT_NEAR(out[i], expected, tolerance(out_type, expected, num_rows))
                << num_rows << " x " << width;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ElementwiseTest, ::testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace motley::kernels::testing
