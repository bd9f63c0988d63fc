#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "motley/kernels/cpu/families.h"
#include "motley/ops/operators.h"
#include "motley/ops/tasks_cpu.h"

namespace motley::ops {
namespace {

constexpr int64_t kColumns = 256;  // of a task

at::Tensor expert_sum_cpu(const at::Tensor& y, const at::Tensor& expert_offset) {
  const auto& cpu = kernels::cpu_kernels();
  const auto type = kernel_type(y.scalar_type());
  const int64_t experts = expert_offset.size(0) - 1;
  const int64_t width = y.size(1);
  at::Tensor out = at::empty({experts, width}, y.options().dtype(at::kFloat));
  std::vector<const void*> rows(y.size(0));
  for (int64_t i = 0; i < y.size(0); ++i) rows[i] = kernels::offset(y.const_data_ptr(), type, i * width);
  const int32_t* offsets = expert_offset.const_data_ptr<int32_t>();
  const int64_t parts = (width + kColumns - 1) / kColumns;
  run_tasks(experts * parts, 0, [&](int64_t task, void*) {
    const int64_t expert = task / parts;
    const int64_t first = task % parts * kColumns;
    float* to = out.mutable_data_ptr<float>() + expert * width + first;
    cpu.weighted_sum(type, rows.data() + offsets[expert], nullptr, offsets[expert + 1] - offsets[expert],
                     first, std::min(kColumns, width - first), kernels::DType::kFloat32, to, false);
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) { m.impl("expert_sum", expert_sum_cpu); }

}  // namespace motley::ops
