// How CPU operators share their work: one pool of tasks, and plain views of their tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "motley/kernels/cpu/multiply.h"
#include "motley/ops/activation.h"

namespace motley::ops {

// Runs task 0 .. num_tasks - 1, each once, on torch's threads; a thread takes the next one when it is
// free. Each call gets `scratch_bytes` of the thread's own memory, which is kept for later calls.
// Threads may take tasks in any order, so no result may depend on it.
void run_tasks(int64_t num_tasks, int64_t scratch_bytes,
               const std::function<void(int64_t task, void* scratch)>& run);

// Rows of one expert that a task works on.
struct RowRange {
  int64_t expert;
  int64_t place;
  int64_t first;
  int64_t count;
};

// The experts' rows in ranges of at most `most`, split evenly in multiples of 16, the last of an expert with
// up to `extra` more; absent experts (place -1) and those without rows have none. The largest come first,
// so that no thread is left with one at the end.
std::vector<RowRange> row_ranges(const at::Tensor& expert_offset,
                                 const std::optional<at::Tensor>& place_of_expert, int64_t most,
                                 int64_t extra = 0);

// Whether some rows are not computed here: those of absent experts and those past the last expert's.
bool has_other_rows(int64_t max_rows, const at::Tensor& expert_offset,
                    const std::optional<at::Tensor>& place_of_expert);

kernels::DType kernel_type(at::ScalarType type);
// `per_token`: the rows are gathered through row_assignment.
kernels::RowSource row_source(const at::Tensor& rows, const at::Tensor& row_assignment, int64_t top_k,
                              bool per_token);
kernels::ActivationSpec activation_spec(int64_t activation, double alpha, double limit);
// The data of one place of a weight or bias; null where there is none.
const void* place_data(const at::Tensor& tensor, int64_t place);
const void* place_data(const std::optional<at::Tensor>& tensor, int64_t place);

// How many parts of columns each of `num_ranges` tasks is cut into, so that all threads find work.
int64_t column_parts(int64_t num_ranges, int64_t columns, int64_t least_columns,
                     int64_t tasks_per_thread = 4);

}  // namespace motley::ops
