#include "motley/nn/projection.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <algorithm>

#include "motley/nn/row_math.h"

namespace motley {
namespace {

static_assert(kMostProjectedRows == kernels::kMostDotRows);
constexpr int64_t kColumns = 64;  // of a piece of work

bool takes_dot_products(const at::Tensor& x, const at::Tensor& weight) {
  return nn_detail::inference_takes({&x, &weight}) && x.dim() == 2 && weight.dim() == 2 && x.size(0) >= 1 &&
         x.size(0) <= kernels::kMostDotRows && x.size(1) == weight.size(1) && x.is_contiguous() &&
         weight.is_contiguous();
}

}  // namespace

at::Tensor project(const at::Tensor& x, const at::Tensor& weight) {
  if (!takes_dot_products(x, weight)) return at::linear(x, weight);
  const auto type = nn_detail::row_type("project", x);
  const auto& cpu = kernels::cpu_kernels();
  const int64_t num_rows = x.size(0), depth = x.size(1), columns = weight.size(0);
  at::Tensor y = at::empty({num_rows, columns}, x.options());
  const void* rows[kernels::kMostDotRows];
  for (int64_t r = 0; r < num_rows; ++r) rows[r] = kernels::offset(x.const_data_ptr(), type, r * depth);
  const void* const w = weight.const_data_ptr();
  void* const to = y.mutable_data_ptr();
  const int64_t pieces = (columns + kColumns - 1) / kColumns;
  const int64_t grain = nn_detail::pieces_for_a_thread(kColumns * depth * kernels::size_of(type));
  at::parallel_for(0, pieces, grain, [&](int64_t begin, int64_t end) {
    float sums[kernels::kMostDotRows * kColumns];
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece * kColumns, count = std::min(kColumns, columns - first);
      const void* from = kernels::offset(w, type, first * depth);
      const void* next = piece + 1 < end ? kernels::offset(from, type, kColumns * depth) : nullptr;
      cpu.dot_rows(type, rows, static_cast<int>(num_rows), {from, depth, count, depth, sums, kColumns, next});
      for (int64_t r = 0; r < num_rows; ++r) {
        cpu.store(sums + r * kColumns, count, type, kernels::offset(to, type, r * columns + first), false);
      }
    }
  });
  return y;
}

}  // namespace motley
