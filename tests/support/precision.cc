#include "tests/support/precision.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace motley::test {

const std::vector<Precision>& cpu_precisions() {
  static const std::vector<Precision> table = {
      {"fp32", at::kFloat, 5e-6},
      {"bf16", at::kBFloat16, 1.5e-2},
  };
  return table;
}

const std::vector<Precision>& gpu_precisions() {
  static const std::vector<Precision> table = {
      {"fp32", at::kFloat, 5e-6},
      {"bf16", at::kBFloat16, 1.5e-2},
      {"fp16", at::kHalf, 2e-3},
  };
  return table;
}

void expect_close(const std::string& what, const at::Tensor& actual, const at::Tensor& expected,
                  double tolerance) {
  ASSERT_TRUE(actual.defined()) << what << " is undefined";
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  if (actual.numel() == 0) {
    return;
  }
  const auto found = actual.detach().cpu().to(at::kDouble), wanted = expected.detach().cpu().to(at::kDouble);
  ASSERT_TRUE(at::isfinite(found).all().item<bool>()) << what << " is not finite";
  const double error = (found - wanted).abs().max().item<double>();
  const double scale = wanted.abs().max().item<double>();
  EXPECT_LE(error, tolerance * scale) << what << ": the largest magnitude is " << scale << ", relative error "
                                      << error / std::max(scale, 1e-300);
}

void expect_same_bits(const std::string& what, const at::Tensor& actual, const at::Tensor& expected) {
  ASSERT_TRUE(actual.defined()) << what << " is undefined";
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  ASSERT_EQ(actual.scalar_type(), expected.scalar_type()) << what;
  const auto found = actual.detach().cpu().contiguous(), wanted = expected.detach().cpu().contiguous();
  EXPECT_TRUE(found.numel() == 0 ||
              std::memcmp(found.const_data_ptr(), wanted.const_data_ptr(), found.nbytes()) == 0)
      << what << " differs";
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  ADD_FAILURE() << "expected an error, got none";
  return "";
}

}  // namespace motley::test
