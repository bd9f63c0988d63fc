// token_sum on tensors of a GPU, for the operators that are made of it.
#pragma once

#include "motley/ops/operators.h"

namespace motley::ops {

void token_sum_into(const at::Tensor& rows, const OptionalTensor& gate_weights, const at::Tensor& token_rows,
                    const at::Tensor& y);

}  // namespace motley::ops
