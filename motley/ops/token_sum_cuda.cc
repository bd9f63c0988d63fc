#include "motley/ops/token_sum_cuda.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "motley/kernels/cuda/plain/activation.h"
#include "motley/kernels/cuda/token_sum.h"
#include "motley/ops/expert_layer_cuda.h"

namespace motley::ops {

void token_sum_into(const at::Tensor& rows, const OptionalTensor& gate_weights, const at::Tensor& token_rows,
                    const at::Tensor& y) {
  const float* weights = gate_weights ? gate_weights->const_data_ptr<float>() : nullptr;
  const int num_tokens = static_cast<int>(token_rows.size(0)), top_k = static_cast<int>(token_rows.size(1));
  const int width = static_cast<int>(rows.size(1));
  if (fast_kernels_take(rows.scalar_type(), 1, {width})) {
    cuda::token_sum(data_type_of(rows.scalar_type()), rows.const_data_ptr(), weights, integers(token_rows),
                    num_tokens, top_k, width, y.mutable_data_ptr(), y.scalar_type() == at::kFloat,
                    current_stream());
  } else {
    cuda::plain::token_sum(rows.const_data_ptr(), element_of(rows.scalar_type()), weights,
                           integers(token_rows), num_tokens, top_k, width, plain_output(y), current_stream());
  }
}

namespace {

at::Tensor token_sum_cuda(const at::Tensor& rows, const OptionalTensor& gate_weights,
                          const at::Tensor& token_rows, at::ScalarType out_dtype) {
  const c10::cuda::CUDAGuard guard(rows.device());
  at::Tensor y = at::empty({token_rows.size(0), rows.size(1)}, rows.options().dtype(out_dtype));
  token_sum_into(rows, gate_weights, token_rows, y);
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CUDA, m) { m.impl("token_sum", token_sum_cuda); }

}  // namespace motley::ops
