// Root mean square normalisation (Zhang and Sennrich, arXiv 1910.07467, Eq. 4), fused.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace motley {

// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension. x [.., D] fp32 or bf16, weight [D] of
// the same dtype; computed in fp32, rounded once. Differentiable in both; keeps x and one fp32 a row.
// Throws c10::Error for other shapes and dtypes.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// Without autograd: y, and 1 / sqrt(mean(x^2) + eps) of each row [rows] fp32.
std::tuple<at::Tensor, at::Tensor> rms_norm_forward(const at::Tensor& x, const at::Tensor& weight,
                                                    double eps);
// dx and dweight.
std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& dy, const at::Tensor& x,
                                                     const at::Tensor& weight, const at::Tensor& inverse_rms);

}  // namespace motley
