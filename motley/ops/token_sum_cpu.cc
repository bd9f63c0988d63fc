#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "motley/kernels/cpu/families.h"
#include "motley/ops/operators.h"
#include "motley/ops/token_sum_cpu.h"

namespace motley::ops {

void token_sum_into(const at::Tensor& rows, const float* gate_weights, const at::Tensor& token_rows,
                    at::Tensor& out) {
  const auto& cpu = kernels::cpu_kernels();
  const auto type = kernel_type(rows.scalar_type());
  const auto out_type = kernel_type(out.scalar_type());
  const int64_t tokens = token_rows.size(0);
  const int64_t top_k = token_rows.size(1);
  const int64_t width = rows.size(1);
  const int32_t* row_of = token_rows.const_data_ptr<int32_t>();
  constexpr int64_t kTokens = 16;  // of a task
  run_tasks((tokens + kTokens - 1) / kTokens, top_k * 16, [&](int64_t task, void* scratch) {
    auto** pointers = static_cast<const void**>(scratch);
    auto* weights = reinterpret_cast<float*>(pointers + top_k);
    for (int64_t t = task * kTokens; t < std::min(tokens, (task + 1) * kTokens); ++t) {
      int64_t count = 0;
      for (int64_t a = t * top_k; a < (t + 1) * top_k; ++a) {
        if (row_of[a] < 0) continue;
        pointers[count] = kernels::offset(rows.const_data_ptr(), type, row_of[a] * width);
        weights[count++] = gate_weights ? gate_weights[a] : 1.0f;
      }
      void* to = kernels::offset(out.mutable_data_ptr(), out_type, t * width);
      cpu.weighted_sum(type, pointers, weights, count, 0, width, out_type, to, false);
    }
  });
}

namespace {

at::Tensor token_sum_cpu(const at::Tensor& rows, const OptionalTensor& gate_weights,
                         const at::Tensor& token_rows, at::ScalarType out_dtype) {
  at::Tensor out = at::empty({token_rows.size(0), rows.size(1)}, rows.options().dtype(out_dtype));
  token_sum_into(rows, gate_weights ? gate_weights->const_data_ptr<float>() : nullptr, token_rows, out);
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) { m.impl("token_sum", token_sum_cpu); }

}  // namespace motley::ops
