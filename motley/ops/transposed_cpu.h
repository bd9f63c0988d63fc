// Products with a weight as it lies: rows [n, K] times W [K, N], where tokens stay rows and columns of W
// become the panel. Used by every backward product with respect to activations.
#pragma once

#include <functional>
#include <vector>

#include "motley/ops/operators.h"
#include "motley/ops/tasks_cpu.h"

namespace motley::ops {

struct TransposedProduct {
  kernels::RowSource rows;               // [n, depth]
  const at::Tensor* weight;              // [P, depth, columns]
  const OptionalTensor* bias = nullptr;  // [P, columns], added
  at::Tensor* out = nullptr;             // [n, columns], fp32 or the rows' dtype, takes the rows computed; or
  // this takes c [range.count, lanes]: columns first .. first + count of the product, lanes = `stride`.
  std::function<void(const RowRange& range, int64_t first, int count, const float* c, int stride)> finish =
      {};
};

// Ranges of rows are cut from those of the experts that are here.
constexpr int64_t kTransposedRows = 256;
void run_transposed(const std::vector<RowRange>& ranges, const TransposedProduct& product);

}  // namespace motley::ops
