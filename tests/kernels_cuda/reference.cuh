// Plain kernels with one thread an output, fp32 sums of 16-bit inputs, and activations in double: what the
// fast ones must give. And 16-bit values on the host.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "motley/kernels/cuda/expert_products.h"

namespace motley::cuda::test {

__host__ __device__ inline float to_float(DataType type, uint16_t bits) {
  return type == DataType::kBf16 ? __bfloat162float(__nv_bfloat16(__nv_bfloat16_raw{bits}))
                                 : __half2float(__half(__half_raw{bits}));
}
inline uint16_t from_float(DataType type, float value) {
  return type == DataType::kBf16 ? static_cast<__nv_bfloat16_raw>(__float2bfloat16(value)).x
                                 : static_cast<__half_raw>(__float2half(value)).x;
}

struct Strided {  // element (e, i, j) of per-expert weights
  const uint16_t* data;
  long place, row, column;
};

// out[r, n] = sum over k of a[index(r), k] * w[place(e), k, n] (+ bias[place, n]); index(r) =
// row_assignment[r] / top_k, or r where top_k is 0.
static __global__ void reference_rows(DataType type, const uint16_t* a, long stride, int depth,
                                      const int* row_assignment, int top_k, const int* row_place, Strided w,
                                      const uint16_t* bias, long bias_stride, int width, int num_rows,
                                      float* out) {
  const long at = blockIdx.x * (long)blockDim.x + threadIdx.x, row = at / width, n = at % width;
  if (row >= num_rows || row_place[row] < 0) return;
  const uint16_t* mine = a + (top_k ? row_assignment[row] / top_k : row) * stride;
  const uint16_t* weights = w.data + row_place[row] * w.place + n * w.column;
  float sum = bias ? to_float(type, bias[row_place[row] * bias_stride + n]) : 0.f;
  for (int k = 0; k < depth; ++k) sum += to_float(type, mine[k]) * to_float(type, weights[k * w.row]);
  out[row * width + n] = sum;
}

// out[e, m, n] = sum over rows of a[token(r) or r, m] * b[r, n]
static __global__ void reference_outer(DataType type, const uint16_t* a, long stride, int height,
                                       const int* row_assignment, int top_k, const int* expert_offset,
                                       const uint16_t* b, int width, int num_experts, float* out) {
  const long at = blockIdx.x * (long)blockDim.x + threadIdx.x;
  const long expert = at / height / width, m = at / width % height, n = at % width;
  if (expert >= num_experts) return;
  float sum = 0.f;
  for (int r = expert_offset[expert]; r < expert_offset[expert + 1]; ++r)
    sum += to_float(type, a[(top_k ? row_assignment[r] / top_k : r) * stride + m]) *
           to_float(type, b[r * (long)width + n]);
  out[at] = sum;
}

// In double, the derivatives by central differences.
inline ActivationGradient reference_activation(const Activation& activation, double g, double u) {
  const double limit = activation.limit, alpha = activation.alpha, step = 1e-6;
  const auto value = [&](double x, double y) -> double {
    switch (activation.kind) {
      case ActivationKind::kSwiGlu:
        return x / (1 + std::exp(-x)) * y;
      case ActivationKind::kGeGlu:
        return x * 0.5 * std::erfc(-x / std::sqrt(2.0)) * y;
      case ActivationKind::kClampedSwiGlu:
        x = std::fmin(x, limit), y = std::fmin(std::fmax(y, -limit), limit);
        return x / (1 + std::exp(-alpha * x)) * (y + 1);
      case ActivationKind::kGelu:
        return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
      case ActivationKind::kRelu:
        return std::fmax(x, 0);
      case ActivationKind::kSilu:
        return x / (1 + std::exp(-x));
      case ActivationKind::kNone:
        return x;
    }
    return NAN;
  };
  // At the clamps' edges the derivative from inside holds.
  const double at_g = g == limit ? g - 2 * step : g, at_u = std::abs(u) == limit ? u * (1 - 2 * step) : u;
  return {static_cast<float>(value(g, u)),
          static_cast<float>((value(at_g + step, u) - value(at_g - step, u)) / (2 * step)),
          static_cast<float>((value(g, at_u + step) - value(g, at_u - step)) / (2 * step))};
}

}  // namespace motley::cuda::test
