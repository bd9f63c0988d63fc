#include "benchmarks/gpu_ceilings.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>

#include "benchmarks/timing.h"

namespace motley::bench {
namespace {

constexpr double kSeconds = 0.2;

}  // namespace

double gpu_matrix_peak(c10::Device device, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const int64_t size = dtype == at::kFloat ? 4096 : 8192;
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const at::Tensor a = at::randn({size, size}, options), b = at::randn({size, size}, options);
  const Timing timing = measure(
      kSeconds, [&](int64_t) { at::mm(a, b); }, device);
  const auto n = static_cast<double>(size);
  return 2 * n * n * n / timing.median;
}

double gpu_read_bandwidth(c10::Device device) {
  const at::NoGradGuard no_grad;
  constexpr int64_t kCount = int64_t{1} << 30;
  const at::Tensor values = at::randn({kCount}, at::TensorOptions().dtype(at::kFloat).device(device));
  const Timing timing = measure(
      kSeconds, [&](int64_t) { values.sum(); }, device);
  return 4.0 * kCount / timing.median;
}

}  // namespace motley::bench
