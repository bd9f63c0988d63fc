#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "motley/ops/operators.h"
#include "motley/ops/outer_cpu.h"

namespace motley::ops {
namespace {

at::Tensor expert_outer_cpu(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& row_assignment,
                            const at::Tensor& expert_offset, int64_t top_k, bool x_by_token) {
  const int64_t experts = expert_offset.size(0) - 1;
  at::Tensor out = at::empty({experts, dy.size(1), x.size(1)}, x.options());
  const int32_t* offsets = expert_offset.const_data_ptr<int32_t>();
  std::vector<RowRange> ranges;
  for (int64_t e = 0; e < experts; ++e) ranges.push_back({e, e, offsets[e], offsets[e + 1] - offsets[e]});
  run_outer({{row_source(dy, row_assignment, top_k, false), row_source(x, row_assignment, top_k, x_by_token),
              dy.size(1), x.size(1), &out}},
            ranges, false);
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) { m.impl("expert_outer", expert_outer_cpu); }

}  // namespace motley::ops
