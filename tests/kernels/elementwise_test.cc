#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

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

TEST_P(ElementwiseTest, RmsNorm) {
  constexpr double kEps = 1e-5;
  for (const int64_t width : {1, 15, 16, 37, 130}) {
    const Data x(type(), width, 1), weight(type(), width, 2), dy(type(), width, 3);
    double squares = 0, dot = 0;
    for (int64_t i = 0; i < width; ++i) squares += x[i] * x[i], dot += dy[i] * weight[i] * x[i];
    const double scale = 1 / std::sqrt(squares / width + kEps);
    Data y(type(), width), dx(type(), width);
    const float found = kernels().rms_norm(type(), x.at(0), weight.at(0), width, kEps, y.at(0));
    ASSERT_NEAR(found, scale, 1e-5 * scale) << width;
    std::vector<float> dweight(width, 0.5f);
    kernels().rms_norm_backward(type(), dy.at(0), x.at(0), weight.at(0), width, found, dx.at(0),
                                dweight.data());
    for (int64_t i = 0; i < width; ++i) {
      const double mean = dot * scale * scale / width;
      const double expected = scale * (dy[i] * weight[i] - x[i] * mean);
      ASSERT_NEAR(y[i], x[i] * scale * weight[i], tolerance(type(), y[i], 1)) << width << ", " << i;
      ASSERT_NEAR(dx[i], expected, tolerance(type(), scale * (1 + std::fabs(expected)), width)) << width;
      ASSERT_NEAR(dweight[i], 0.5 + dy[i] * x[i] * scale, 1e-5 * (1 + scale)) << width << ", " << i;
    }
  }
}

TEST_P(ElementwiseTest, Rotation) {
  for (const int64_t half : {1, 8, 16, 21}) {
    const Data x(type(), 2 * half, 1);
    std::vector<float> cosine(half), sine(half);
    for (int64_t i = 0; i < half; ++i) cosine[i] = std::cos(0.3f * i), sine[i] = std::sin(0.3f * i);
    for (const float sign : {1.0f, -1.0f}) {
      Data y(type(), 2 * half);
      kernels().rotate(type(), x.at(0), cosine.data(), sine.data(), sign, half, y.at(0));
      for (int64_t i = 0; i < half; ++i) {
        const double s = sign * sine[i], a = x[i], b = x[i + half];
        ASSERT_NEAR(y[i], a * cosine[i] - b * s, tolerance(type(), 3, 2)) << half << ", " << i;
        ASSERT_NEAR(y[i + half], b * cosine[i] + a * s, tolerance(type(), 3, 2)) << half << ", " << i;
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

// What is not finite must not come out finite: a diverged model would go unnoticed.
TEST_P(ElementwiseTest, ActivationsPassOnWhatIsNotFinite) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr int64_t kCount = 37;
  for (const Activation kind : kAll) {
    const ActivationSpec spec{kind, kAlpha, kLimit};
    for (const auto& [g, u] : {std::pair{kNan, 0.5}, {0.5, kNan}, {kInfinity, 0.5}, {-kInfinity, 0.5}}) {
      if (!spec.gated() && std::isnan(u)) continue;
      for (const int64_t at : {int64_t{3}, kCount - 1}) {
        std::vector<float> gate(kCount, 0.25f), up(kCount, 0.75f), a(kCount);
        gate[at] = static_cast<float>(g);
        up[at] = static_cast<float>(u);
        kernels().activate(spec, gate.data(), up.data(), kCount, a.data());
        const double expected = activation(kind, g, u);
        for (int64_t i = 0; i < kCount; ++i) {
          const bool finite = i != at || std::isfinite(expected);
          ASSERT_EQ(std::isfinite(a[i]), finite) << static_cast<int>(kind) << " of " << g << ", " << u;
        }
        if (std::isfinite(expected)) {
          EXPECT_NEAR(a[at], expected, 1e-6);
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, ActivationGradientsPassOnNan) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr int64_t kCount = 37;
  for (const Activation kind : kAll) {
    const ActivationSpec spec{kind, kAlpha, kLimit};
    for (const char* where : {"gate", "up", "da"}) {
      const std::string_view place = where;
      if (!spec.gated() && place == "up") continue;
      for (const int64_t at : {int64_t{3}, kCount - 1}) {
        Data gate(type(), kCount, 57), up(type(), kCount, 58);
        std::vector<float> da(kCount, 0.5f);
        if (place == "gate") gate.set(at, kNan);
        if (place == "up") up.set(at, kNan);
        if (place == "da") da[at] = kNan;
        Data dgate(type(), kCount), dup(type(), kCount), activated(type(), kCount);
        const float product =
            kernels().activate_backward(spec, da.data(), type(), gate.at(0), up.at(0), 0.75f, kCount,
                                        dgate.at(0), dup.at(0), activated.at(0));
        EXPECT_TRUE(std::isnan(product)) << static_cast<int>(kind) << " with NaN in " << where;
        for (int64_t i = 0; i < kCount; ++i) {
          ASSERT_EQ(std::isnan(activated[i]), i == at && place != "da") << static_cast<int>(kind) << where;
          // As in torch, the slope of ReLU is 1 there.
          const bool slope = i == at && !(kind == Activation::kRelu && place == "gate");
          ASSERT_EQ(std::isnan(dgate[i]), slope) << static_cast<int>(kind) << where;
        }
      }
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
