// Zero-computation experts of checked arguments as the CUDA kernels take them.
#pragma once

#include "motley/kernels/cuda/zero_experts.h"
#include "motley/ops/operators.h"

namespace motley::ops {

cuda::ZeroExpertLayer cuda_zero_experts(const at::Tensor& x, const at::Tensor& slots,
                                        const at::Tensor& weights, int64_t num_experts, at::IntArrayRef kinds,
                                        const OptionalTensor& constant, const OptionalTensor& constant_gate);

}  // namespace motley::ops
