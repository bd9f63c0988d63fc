// Products with a weight as it lies: rows [n, K] times W [K, N], where tokens stay rows and columns of W
// become the panel. Used by every backward product with respect to activations.
#pragma once

#include <functional>
#include <vector>

#include "motley/ops/tasks_cpu.h"

namespace motley::ops {

struct TransposedProduct {
  kernels::RowSource rows;   // [n, depth]
  const at::Tensor* weight;  // [P, depth, columns]
  // Takes c [range.count, lanes]: columns first .. first + count of the product, lanes = `stride`.
  std::function<void(const RowRange& range, int64_t first, int count, const float* c, int stride)> finish;
};

// Ranges of rows are cut from those of the experts that are here.
constexpr int64_t kTransposedRows = 256;
void run_transposed(const std::vector<RowRange>& ranges, const TransposedProduct& product);

}  // namespace motley::ops
