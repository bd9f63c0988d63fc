#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "motley/kernels/cpu/expert_block.h"
#include "motley/kernels/cpu/families.h"
#include "motley/ops/operators.h"
#include "motley/ops/tasks_cpu.h"

namespace motley::ops {
namespace {

using kernels::Arena;
using kernels::BlockInput;
using kernels::CpuKernels;
using kernels::DType;

struct Forward {
  const CpuKernels& cpu;
  DType type;
  kernels::RowSource x;
  const at::Tensor& gate_up;
  const at::Tensor& down;
  const OptionalTensor& gate_up_bias;
  const OptionalTensor& down_bias;
  kernels::ActivationSpec activation;
  void* rows;
  void* hidden;  // or null
  std::vector<RowRange> ranges;

  // Few rows are read with their expert's weights and share nothing: they are cut as finely as evenness asks.
  int64_t parts(int64_t columns) const {
    const bool few = !ranges.empty() && ranges.front().count <= kernels::kFewRows;
    return column_parts(static_cast<int64_t>(ranges.size()), columns,
                        (few ? 1 : 4) * int64_t{kernels::kTileColumns}, few ? 16 : 4);
  }
  int64_t model_width() const { return gate_up.size(2); }
  int64_t expert_width() const { return down.size(2); }

  int64_t input_bytes() const {
    int64_t most = 0;
    for (const RowRange& range : ranges) {
      most =
          std::max(most, kernels::block_input_bytes(cpu, type, model_width(), static_cast<int>(range.count)));
    }
    return most;
  }
  int64_t activated_bytes(const RowRange& range) const {
    return kernels::block_input_bytes(cpu, type, expert_width(), static_cast<int>(range.count));
  }
  BlockInput activated(const RowRange& range, void* memory) const {
    return kernels::activated_input(cpu, type, expert_width(), static_cast<int>(range.count), memory);
  }

  // `next`: what is read afterwards, if that is known.
  void up(const RowRange& range, int64_t first, int64_t last, const BlockInput& a, const void* next,
          Arena arena) const {
    const kernels::RowBlock block{x, range.first, static_cast<int>(range.count), model_width()};
    const auto input = kernels::pack_block(cpu, block, arena.take(input_bytes()));
    const kernels::LinearWeight w{place_data(gate_up, range.place), type, model_width(),
                                  place_data(gate_up_bias, range.place)};
    void* to[kernels::kMaxBlockRows];
    for (int64_t i = 0; hidden && i < range.count; ++i) {
      to[i] = kernels::offset(hidden, type, (range.first + i) * gate_up.size(1));
    }
    kernels::expert_up(cpu, input, w, activation, expert_width(), first, last, hidden ? to : nullptr, a, next,
                       arena.take(0));
  }

  void down_columns(const RowRange& range, int64_t first, int64_t last, const BlockInput& a,
                    Arena arena) const {
    const kernels::LinearWeight w{place_data(down, range.place), type, expert_width(),
                                  place_data(down_bias, range.place)};
    void* to[kernels::kMaxBlockRows];
    for (int64_t i = 0; i < range.count; ++i) {
      to[i] = kernels::offset(rows, type, (range.first + i) * model_width());
    }
    kernels::linear_columns(cpu, a, w, first, last, type, to, arena.take(0));
  }
};

// A task is a whole expert over one range of rows; the activated rows never leave its scratch.
void run_whole(const Forward& forward) {
  int64_t activated_bytes = 0;
  for (const RowRange& range : forward.ranges) {
    activated_bytes = std::max(activated_bytes, forward.activated_bytes(range));
  }
  const int64_t scratch_bytes = activated_bytes + forward.input_bytes() + kernels::block_scratch_bytes();
  run_tasks(static_cast<int64_t>(forward.ranges.size()), scratch_bytes, [&](int64_t task, void* scratch) {
    const RowRange& range = forward.ranges[task];
    Arena arena(scratch);
    const BlockInput a = forward.activated(range, arena.take(activated_bytes));
    forward.up(range, 0, forward.expert_width(), a, place_data(forward.down, range.place), arena);
    forward.down_columns(range, 0, forward.model_width(), a, arena);
  });
}

// Few ranges: their columns are shared out too, with the activated rows of all of them in between.
void run_in_parts(const Forward& forward) {
  const auto num_ranges = static_cast<int64_t>(forward.ranges.size());
  std::vector<int64_t> starts;
  int64_t bytes = 0;
  for (const RowRange& range : forward.ranges) {
    starts.push_back(bytes);
    bytes += forward.activated_bytes(range);
  }
  const at::Tensor memory = at::empty({bytes + 64}, at::TensorOptions().dtype(at::kByte));
  auto* base = static_cast<std::byte*>(memory.mutable_data_ptr());
  base += (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
  auto run = [&](int64_t columns, int64_t scratch_bytes, auto compute) {
    const int64_t parts = forward.parts(columns);
    const int64_t width = (columns + parts - 1) / parts + ((columns + parts - 1) / parts) % 2;
    run_tasks(num_ranges * parts, scratch_bytes, [&](int64_t task, void* scratch) {
      const int64_t r = task / parts;
      const int64_t first = std::min(columns, task % parts * width);
      const BlockInput a = forward.activated(forward.ranges[r], base + starts[r]);
      compute(forward.ranges[r], first, std::min(columns, first + width), a, Arena(scratch));
    });
  };
  run(forward.expert_width(), forward.input_bytes() + kernels::block_scratch_bytes(),
      [&](const RowRange& range, int64_t first, int64_t last, const BlockInput& a, Arena arena) {
        forward.up(range, first, last, a, nullptr, arena);
      });
  run(forward.model_width(), kernels::block_scratch_bytes(),
      [&](const RowRange& range, int64_t first, int64_t last, const BlockInput& a, Arena arena) {
        forward.down_columns(range, first, last, a, arena);
      });
}

void expert_rows_cpu(const at::Tensor& x, const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                     int64_t top_k, const at::Tensor& gate_up, const at::Tensor& down,
                     const OptionalTensor& gate_up_bias, const OptionalTensor& down_bias,
                     const OptionalTensor& place_of_expert, int64_t activation, double alpha, double limit,
                     const at::Tensor& rows, const OptionalTensor& hidden) {
  const Forward forward{
      kernels::cpu_kernels(),
      kernel_type(x.scalar_type()),
      row_source(x, row_assignment, top_k, true),
      gate_up,
      down,
      gate_up_bias,
      down_bias,
      activation_spec(activation, alpha, limit),
      rows.mutable_data_ptr(),
      hidden ? hidden->mutable_data_ptr() : nullptr,
      row_ranges(expert_offset, place_of_expert,
                 kernels::block_rows(kernels::cpu_kernels(), kernel_type(x.scalar_type())),
                 kernels::spare_rows(kernels::cpu_kernels(), kernel_type(x.scalar_type())))};
  if (forward.parts(forward.expert_width()) == 1) {
    run_whole(forward);
  } else {
    run_in_parts(forward);
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) { m.impl("expert_rows", expert_rows_cpu); }

}  // namespace motley::ops
