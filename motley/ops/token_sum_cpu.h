#pragma once

#include "motley/ops/tasks_cpu.h"

namespace motley::ops {

// out[t] = sum over k, in order, of gate_weights[t, k] * rows[token_rows[t, k]] in fp32, rounded once;
// null gate_weights for ones; choices without a row (-1) add nothing.
void token_sum_into(const at::Tensor& rows, const float* gate_weights, const at::Tensor& token_rows,
                    at::Tensor& out);

}  // namespace motley::ops
