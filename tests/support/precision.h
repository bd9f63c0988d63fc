// The one table of dtypes and tolerances that operators are tested over, and the comparisons it is for.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace motley::test {

struct Precision {
  std::string name;
  at::ScalarType dtype;
  // Largest difference from the fp64 reference, as a part of the reference's largest magnitude.
  double tolerance;
};

const std::vector<Precision>& cpu_precisions();
const std::vector<Precision>& gpu_precisions();

// A test failure that names `what` if shapes differ, anything is not finite, or the largest difference is
// more than tolerance times the largest expected magnitude.
void expect_close(const std::string& what, const at::Tensor& actual, const at::Tensor& expected,
                  double tolerance);

// A test failure unless shapes, dtypes and all bits agree.
void expect_same_bits(const std::string& what, const at::Tensor& actual, const at::Tensor& expected);

// The message of the c10::Error that `call` throws, without its stack; a test failure and "" if none.
std::string error_of(const std::function<void()>& call);

}  // namespace motley::test
