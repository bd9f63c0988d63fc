// Loops over rows of fp32 or bf16 values, shared by the fused operators of this folder. Sums run over
// kLanes partial sums, so that compilers can vectorise them without reordering what is written here.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

#include <cstdint>

namespace motley::nn_detail {

constexpr int64_t kLanes = 16;
// Rows handled by one task; also the grain of partial sums, so results do not depend on the threads.
constexpr int64_t kRowsPerTask = 64;

// sum of f(i) for i in [0, n)
template <class F>
inline float lane_sum(int64_t n, const F& f) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += f(i + j);
  }
  for (int64_t j = 0; i < n; ++i, ++j) lanes[j] += f(i);
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

// Calls f(float{}) or f(c10::BFloat16{}) for the dtype; others throw, naming `op`.
template <class F>
void dispatch_dtype(const char* op, at::ScalarType dtype, const F& f) {
  if (dtype == at::kFloat) {
    f(float{});
  } else {
    TORCH_CHECK(dtype == at::kBFloat16, "[", op, "] expected float32 or bfloat16, got ", dtype);
    f(c10::BFloat16{});
  }
}

}  // namespace motley::nn_detail
