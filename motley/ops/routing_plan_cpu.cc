// Counting sort in three passes: a histogram of each chunk of assignments, offsets of every (expert,
// chunk) pair, and each chunk's rows in its own order. Stable, and the same for any number of chunks.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "motley/ops/operators.h"

namespace motley::ops {
namespace {

// Below this many assignments a chunk costs more to start than to sort.
constexpr int64_t kChunk = 16384;

int64_t num_chunks(int64_t num_assignments, int64_t num_experts) {
  // Histograms must not outweigh the assignments they count.
  const int64_t useful =
      std::min<int64_t>(at::get_num_threads(), num_assignments / std::max(kChunk, 4 * num_experts));
  return std::max<int64_t>(useful, 1);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> routing_plan(const at::Tensor& slots, int64_t num_experts) {
  const int64_t num_assignments = slots.numel();
  const int32_t* slot = slots.const_data_ptr<int32_t>();
  auto expert_offset = at::empty({num_experts + 1}, slots.options());
  auto token_rows = at::empty_like(slots);

  const int64_t chunks = num_chunks(num_assignments, num_experts);
  const int64_t chunk_size = (num_assignments + chunks - 1) / chunks;
  const auto each_chunk = [&](auto&& body) {
    at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t first = std::min(chunk * chunk_size, num_assignments);
        body(chunk, first, std::min(first + chunk_size, num_assignments));
      }
    });
  };
  const auto routed = [num_experts](int32_t s) { return s >= 0 && s < num_experts; };

  std::vector<int32_t> next_row(chunks * num_experts, 0);  // counts first, then the next row of each pair
  each_chunk([&](int64_t chunk, int64_t first, int64_t last) {
    int32_t* count = next_row.data() + chunk * num_experts;
    for (int64_t a = first; a < last; ++a) {
      if (routed(slot[a])) {
        ++count[slot[a]];
      }
    }
  });

  int32_t* offset = expert_offset.mutable_data_ptr<int32_t>();
  int32_t row = 0;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    offset[expert] = row;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      row += std::exchange(next_row[chunk * num_experts + expert], row);
    }
  }
  offset[num_experts] = row;

  auto row_assignment = at::empty({row}, slots.options());
  int32_t* assignment = row_assignment.mutable_data_ptr<int32_t>();
  int32_t* rows = token_rows.mutable_data_ptr<int32_t>();
  each_chunk([&](int64_t chunk, int64_t first, int64_t last) {
    int32_t* next = next_row.data() + chunk * num_experts;
    for (int64_t a = first; a < last; ++a) {
      rows[a] = -1;
      if (routed(slot[a])) {
        rows[a] = next[slot[a]]++;
        assignment[rows[a]] = static_cast<int32_t>(a);
      }
    }
  });
  return {row_assignment, expert_offset, token_rows};
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) { m.impl("routing_plan", TORCH_FN(routing_plan)); }

}  // namespace motley::ops
