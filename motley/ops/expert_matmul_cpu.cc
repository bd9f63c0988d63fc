#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>

#include "motley/kernels/cpu/expert_block.h"
#include "motley/kernels/cpu/families.h"
#include "motley/ops/operators.h"
#include "motley/ops/transposed_cpu.h"

namespace motley::ops {
namespace {

using kernels::Arena;

void multiply(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
              const at::Tensor& row_assignment, const std::vector<RowRange>& ranges, int64_t top_k,
              bool by_token, at::Tensor& y) {
  const auto& cpu = kernels::cpu_kernels();
  const auto source = row_source(x, row_assignment, top_k, by_token);
  const int64_t depth = weight.size(2);
  const int64_t columns = weight.size(1);
  const int64_t parts = column_parts(static_cast<int64_t>(ranges.size()), columns, 4 * kernels::kTileColumns);
  const int64_t width = (columns + parts - 1) / parts;
  int64_t input_bytes = 0;
  for (const RowRange& range : ranges) {
    input_bytes = std::max(
        input_bytes, kernels::block_input_bytes(cpu, source.type, depth, static_cast<int>(range.count)));
  }
  const int64_t scratch_bytes = input_bytes + kernels::block_scratch_bytes();
  run_tasks(static_cast<int64_t>(ranges.size()) * parts, scratch_bytes, [&](int64_t task, void* scratch) {
    const RowRange& range = ranges[task / parts];
    const int64_t first = task % parts * width;
    const int64_t last = std::min(columns, first + width);
    Arena arena(scratch);
    const kernels::RowBlock block{source, range.first, static_cast<int>(range.count), depth};
    const auto input = kernels::pack_block(cpu, block, arena.take(input_bytes));
    const kernels::LinearWeight w{place_data(weight, range.place), source.type, depth,
                                  place_data(bias, range.place)};
    void* out[kernels::kMaxBlockRows];
    for (int64_t i = 0; i < range.count; ++i) {
      out[i] = kernels::offset(y.mutable_data_ptr(), source.type, (range.first + i) * columns);
    }
    kernels::linear_columns(cpu, input, w, first, last, source.type, out, arena.take(0));
  });
}

at::Tensor expert_matmul_cpu(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                             const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                             const OptionalTensor& place_of_expert, int64_t top_k, bool by_token,
                             bool transpose_weight) {
  const int64_t max_rows = row_assignment.size(0);
  const int64_t columns = transpose_weight ? weight.size(1) : weight.size(2);
  at::Tensor y = has_other_rows(max_rows, expert_offset, place_of_expert)
                     ? at::zeros({max_rows, columns}, x.options())
                     : at::empty({max_rows, columns}, x.options());
  if (transpose_weight) {
    const auto ranges = row_ranges(expert_offset, place_of_expert,
                                   kernels::block_rows(kernels::cpu_kernels(), kernel_type(x.scalar_type())),
                                   kernels::spare_rows(kernels::cpu_kernels(), kernel_type(x.scalar_type())));
    multiply(x, weight, bias, row_assignment, ranges, top_k, by_token, y);
  } else {
    const auto ranges = row_ranges(expert_offset, place_of_expert, kTransposedRows);
    run_transposed(ranges, {row_source(x, row_assignment, top_k, by_token), &weight, &bias, &y});
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) { m.impl("expert_matmul", expert_matmul_cpu); }

}  // namespace motley::ops
