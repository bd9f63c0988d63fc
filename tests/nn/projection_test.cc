#include "motley/nn/projection.h"

#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

namespace motley {
namespace {

TEST(Projection, FewRowsInInferenceAreTorchsProduct) {
  const c10::AutoGradMode no_grad(false);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t rows : {1, 2, 5, 8, 9}) {
      for (const int64_t columns : {1, 63, 64, 200}) {
        const at::Tensor x = at::randn({rows, 96}).to(type), w = at::randn({columns, 96}).to(type);
        const at::Tensor y = project(x, w);
        ASSERT_EQ(y.scalar_type(), type);
        const double tolerance = type == at::kFloat ? 1e-5 : 1e-2;
        const at::Tensor expected = at::linear(x.to(at::kDouble), w.to(at::kDouble));
        ASSERT_TRUE(at::allclose(y.to(at::kDouble), expected, tolerance, 10 * tolerance))
            << rows << ", " << columns;
      }
    }
  }
}

TEST(Projection, ARowHasTheSameBitsBesideOthersAndOnAnyNumberOfThreads) {
  const c10::AutoGradMode no_grad(false);
  const int threads = at::get_num_threads();
  const at::Tensor x = at::randn({8, 1024}), w = at::randn({500, 1024});
  const at::Tensor y = project(x, w);
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    for (int64_t row = 0; row < 8; ++row) {
      EXPECT_TRUE(at::equal(project(x.narrow(0, row, 1), w), y.narrow(0, row, 1))) << count << ", " << row;
    }
  }
  at::set_num_threads(threads);
}

TEST(Projection, TrainingKeepsTorchsGradients) {
  const at::Tensor x = at::randn({4, 32}), w = at::randn({16, 32}).requires_grad_();
  project(x, w).sum().backward();
  EXPECT_TRUE(w.grad().defined());
}

}  // namespace
}  // namespace motley
