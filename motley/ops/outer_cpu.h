#pragma once

#include <vector>

#include "motley/ops/tasks_cpu.h"

namespace motley::ops {

// out[place] = sum over an expert's rows of a_r^T b_r.
struct OuterProduct {
  kernels::RowSource a, b;
  int64_t m, j;     // widths of a and b
  at::Tensor* out;  // [P, m, j] contiguous, fp32 or bf16
};

// All products over all ranges (whole experts; no rows give zeros) in one pool of tasks.
void run_outer(const std::vector<OuterProduct>& products, const std::vector<RowRange>& experts,
               bool accumulate);

}  // namespace motley::ops
