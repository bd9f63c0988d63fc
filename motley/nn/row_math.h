// What the operators of this folder that go through rows share.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

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

// Whether the kernels of inference on a CPU take these: of one dtype, fp32 or bf16, and no gradient wanted.
inline bool inference_takes(std::initializer_list<const at::Tensor*> tensors) {
  const at::ScalarType dtype = (*tensors.begin())->scalar_type();
  if (dtype != at::kFloat && dtype != at::kBFloat16) return false;
  return std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor* tensor) {
    return tensor->is_cpu() && tensor->scalar_type() == dtype &&
           !(at::GradMode::is_enabled() && tensor->requires_grad());
  });
}

// Pieces of so many bytes that a thread should take at least, for memory to be worth sharing.
inline int64_t pieces_for_a_thread(int64_t bytes) {
  constexpr int64_t kLeastBytes = int64_t{1} << 17;
  return std::max<int64_t>(1, kLeastBytes / std::max<int64_t>(1, bytes));
}

}  // namespace motley::nn_detail
