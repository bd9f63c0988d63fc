#include "motley/nn/rms_norm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "motley/nn/row_math.h"

namespace motley {
namespace {

using kernels::offset;
using nn_detail::kRowsPerTask;

constexpr const char* kName = "rms_norm";

void check(const at::Tensor& x, const at::Tensor& weight) {
  TORCH_CHECK(x.dim() >= 1 && weight.dim() == 1 && x.size(-1) == weight.size(0) && weight.size(0) > 0, "[",
              kName, "] expected x [.., D] and weight [D], got ", x.sizes(), " and ", weight.sizes());
  TORCH_CHECK(x.scalar_type() == weight.scalar_type(), "[", kName, "] expected weight in x's dtype ",
              x.scalar_type(), ", got ", weight.scalar_type());
  TORCH_CHECK(x.device().is_cpu(), "[", kName, "] expected a CPU tensor, got ", x.device());
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> rms_norm_forward(const at::Tensor& x_in, const at::Tensor& weight_in,
                                                    double eps) {
  check(x_in, weight_in);
  const at::Tensor x = x_in.contiguous(), weight = weight_in.contiguous();
  const int64_t width = weight.size(0), rows = x.numel() / width;
  at::Tensor y = at::empty_like(x), inverse_rms = at::empty({rows}, x.options().dtype(at::kFloat));
  const auto type = nn_detail::row_type(kName, x);
  const auto& cpu = kernels::cpu_kernels();
  const void *from = x.const_data_ptr(), *scale = weight.const_data_ptr();
  void* to = y.mutable_data_ptr();
  float* inverse = inverse_rms.mutable_data_ptr<float>();
  at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * width;
      inverse[row] = cpu.rms_norm(type, offset(from, type, at), scale, width, eps, offset(to, type, at));
    }
  });
  return {y, inverse_rms};
}

std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& dy_in, const at::Tensor& x_in,
                                                     const at::Tensor& weight_in,
                                                     const at::Tensor& inverse_rms) {
  check(x_in, weight_in);
  TORCH_CHECK(dy_in.sizes() == x_in.sizes() && dy_in.scalar_type() == x_in.scalar_type(), "[", kName,
              "_backward] expected dy like x ", x_in.sizes(), ", got ", dy_in.sizes(), " ",
              dy_in.scalar_type());
  const at::Tensor dy = dy_in.contiguous(), x = x_in.contiguous(), weight = weight_in.contiguous();
  const int64_t width = weight.size(0), rows = x.numel() / width;
  const int64_t num_tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
  at::Tensor dx = at::empty_like(x);
  // Each task adds up its own rows; the tasks are summed in order, whatever thread ran them.
  at::Tensor partial = at::empty({num_tasks, width}, x.options().dtype(at::kFloat));
  const auto type = nn_detail::row_type(kName, x);
  const auto& cpu = kernels::cpu_kernels();
  const void *gradient = dy.const_data_ptr(), *value = x.const_data_ptr(), *scale = weight.const_data_ptr();
  const float* inverse = inverse_rms.const_data_ptr<float>();
  void* to = dx.mutable_data_ptr();
  float* sums = partial.mutable_data_ptr<float>();
  at::parallel_for(0, num_tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      float* sum = sums + task * width;
      std::fill_n(sum, width, 0.0f);
      for (int64_t row = task * kRowsPerTask; row < std::min(rows, (task + 1) * kRowsPerTask); ++row) {
        const int64_t at = row * width;
        cpu.rms_norm_backward(type, offset(gradient, type, at), offset(value, type, at), scale, width,
                              inverse[row], offset(to, type, at), sum);
      }
    }
  });
  return {dx, partial.sum(0).to(weight.scalar_type())};
}

}  // namespace motley
