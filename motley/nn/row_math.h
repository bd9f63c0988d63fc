// What the operators of this folder that go through rows share.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "motley/kernels/cpu/families.h"

namespace motley::nn_detail {

// Rows handled by one task; also the grain of partial sums, so results do not depend on the threads.
constexpr int64_t kRowsPerTask = 64;

// What the kernels call the tensor's dtype; others than fp32 and bf16 throw, naming `op`.
inline kernels::DType row_type(const char* op, const at::Tensor& tensor) {
  const at::ScalarType dtype = tensor.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "[", op, "] expected float32 or bfloat16, got ",
              dtype);
  return dtype == at::kFloat ? kernels::DType::kFloat32 : kernels::DType::kBFloat16;
}

}  // namespace motley::nn_detail
