#include "motley/nn/rms_norm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cmath>

#include "motley/nn/row_math.h"

namespace motley {
namespace {

using nn_detail::dispatch_dtype;
using nn_detail::kRowsPerTask;
using nn_detail::lane_sum;

constexpr const char* kName = "rms_norm";

template <class T>
void forward_row(const T* x, const T* weight, int64_t width, double eps, T* y, float* inverse_rms) {
  const float squares = lane_sum(width, [&](int64_t i) {
    const float value = static_cast<float>(x[i]);
    return value * value;
  });
  const float scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(width) + eps));
  *inverse_rms = scale;
  for (int64_t i = 0; i < width; ++i) {
    y[i] = static_cast<T>(static_cast<float>(x[i]) * scale * static_cast<float>(weight[i]));
  }
}

// dx = s (w dy - x s^2 mean(w dy x)), dw += dy x s with s = inverse_rms
template <class T>
void backward_row(const T* dy, const T* x, const T* weight, int64_t width, float scale, T* dx,
                  float* dweight) {
  const float dot = lane_sum(width, [&](int64_t i) {
    return static_cast<float>(dy[i]) * static_cast<float>(weight[i]) * static_cast<float>(x[i]);
  });
  const float mean = dot * scale * scale / static_cast<float>(width);
  for (int64_t i = 0; i < width; ++i) {
    const float gradient = static_cast<float>(dy[i]), value = static_cast<float>(x[i]);
    dx[i] = static_cast<T>(scale * (gradient * static_cast<float>(weight[i]) - value * mean));
    dweight[i] += gradient * value * scale;
  }
}

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
  dispatch_dtype(kName, x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.const_data_ptr<T>();
    const T* scale = weight.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    float* inverse = inverse_rms.mutable_data_ptr<float>();
    at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        forward_row(from + row * width, scale, width, eps, to + row * width, inverse + row);
      }
    });
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
  dispatch_dtype(kName, x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* gradient = dy.const_data_ptr<T>();
    const T* value = x.const_data_ptr<T>();
    const T* scale = weight.const_data_ptr<T>();
    const float* inverse = inverse_rms.const_data_ptr<float>();
    T* to = dx.mutable_data_ptr<T>();
    float* sums = partial.mutable_data_ptr<float>();
    at::parallel_for(0, num_tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        float* sum = sums + task * width;
        std::fill_n(sum, width, 0.0f);
        for (int64_t row = task * kRowsPerTask; row < std::min(rows, (task + 1) * kRowsPerTask); ++row) {
          const int64_t at = row * width;
          backward_row(gradient + at, value + at, scale, width, inverse[row], to + at, sum);
        }
      }
    });
  });
  return {dx, partial.sum(0).to(weight.scalar_type())};
}

}  // namespace motley
