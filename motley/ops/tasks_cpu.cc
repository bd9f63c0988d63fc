#include "motley/ops/tasks_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>

namespace motley::ops {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Free {
  void operator()(std::byte* memory) const { ::operator delete[](memory, kAlignment); }
};

// A thread's scratch grows to what was asked for once and is reused by every operator.
void* thread_scratch(int64_t bytes) {
  thread_local std::unique_ptr<std::byte[], Free> memory;
  thread_local int64_t size = 0;
  if (size < bytes) {
    memory.reset();
    memory.reset(static_cast<std::byte*>(::operator new[](static_cast<size_t>(bytes), kAlignment)));
    size = bytes;
  }
  return memory.get();
}

}  // namespace

void run_tasks(int64_t num_tasks, int64_t scratch_bytes,
               const std::function<void(int64_t task, void* scratch)>& run) {
  if (num_tasks == 0) return;
  const int64_t threads = at::in_parallel_region() ? 1 : std::min<int64_t>(at::get_num_threads(), num_tasks);
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    void* scratch = thread_scratch(scratch_bytes);
    for (int64_t task = next++; task < num_tasks; task = next++) run(task, scratch);
  });
}

std::vector<RowRange> row_ranges(const at::Tensor& expert_offset,
                                 const std::optional<at::Tensor>& place_of_expert, int64_t most,
                                 int64_t extra) {
  const int32_t* offsets = expert_offset.const_data_ptr<int32_t>();
  const int32_t* places = place_of_expert ? place_of_expert->const_data_ptr<int32_t>() : nullptr;
  std::vector<RowRange> ranges;
  for (int64_t expert = 0; expert + 1 < expert_offset.size(0); ++expert) {
    const int64_t place = places ? places[expert] : expert;
    const int64_t rows = offsets[expert + 1] - offsets[expert];
    if (place < 0 || rows == 0) continue;
    const int64_t parts = std::max<int64_t>(1, (rows - extra + most - 1) / most);
    const int64_t size = std::min(most, ((rows + parts - 1) / parts + 15) / 16 * 16);
    for (int64_t first = 0; first < rows;) {
      const int64_t left = rows - first;
      const int64_t count = left <= size + extra ? left : size;
      ranges.push_back({expert, place, offsets[expert] + first, count});
      first += count;
    }
  }
  std::stable_sort(ranges.begin(), ranges.end(),
                   [](const RowRange& a, const RowRange& b) { return a.count > b.count; });
  return ranges;
}

bool has_other_rows(int64_t max_rows, const at::Tensor& expert_offset,
                    const std::optional<at::Tensor>& place_of_expert) {
  const int32_t* offsets = expert_offset.const_data_ptr<int32_t>();
  const int64_t experts = expert_offset.size(0) - 1;
  if (offsets[experts] < max_rows) return true;
  if (!place_of_expert) return false;
  const int32_t* places = place_of_expert->const_data_ptr<int32_t>();
  return std::any_of(places, places + experts, [](int32_t place) { return place < 0; });
}

kernels::DType kernel_type(at::ScalarType type) {
  return type == at::kFloat ? kernels::DType::kFloat32 : kernels::DType::kBFloat16;
}

kernels::RowSource row_source(const at::Tensor& rows, const at::Tensor& row_assignment, int64_t top_k,
                              bool per_token) {
  return {rows.const_data_ptr(), kernel_type(rows.scalar_type()), rows.size(1),
          per_token ? row_assignment.const_data_ptr<int32_t>() : nullptr, top_k};
}

kernels::ActivationSpec activation_spec(int64_t activation, double alpha, double limit) {
  return {static_cast<kernels::Activation>(activation), static_cast<float>(alpha), static_cast<float>(limit)};
}

const void* place_data(const at::Tensor& tensor, int64_t place) {
  return static_cast<const std::byte*>(tensor.const_data_ptr()) +
         place * tensor.stride(0) * static_cast<int64_t>(tensor.element_size());
}

const void* place_data(const std::optional<at::Tensor>& tensor, int64_t place) {
  return tensor ? place_data(*tensor, place) : nullptr;
}

int64_t column_parts(int64_t num_ranges, int64_t columns, int64_t least_columns, int64_t tasks_per_thread) {
  const int64_t threads = at::get_num_threads();
  if (threads == 1) return 1;
  const int64_t wanted = (tasks_per_thread * threads + num_ranges - 1) / std::max<int64_t>(1, num_ranges);
  return std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, columns / least_columns));
}

}  // namespace motley::ops
