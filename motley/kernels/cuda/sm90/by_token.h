// Plain products over gathered rows, by the kernels of expert_up (weights [P, width, depth]) and
// expert_dhidden ([P, depth, width]).
#pragma once

#include <cuda.h>

#include "motley/kernels/cuda/expert_products.h"

namespace motley::cuda::sm90 {

void multiply_by_token_transposed(const ExpertShape& shape, const ExpertPlan& plan,
                                  const RowsProduct& product, const CUtensorMap& weights,
                                  cudaStream_t stream);
void multiply_by_token(const ExpertShape& shape, const ExpertPlan& plan, const RowsProduct& product,
                       const CUtensorMap& weights, cudaStream_t stream);

}  // namespace motley::cuda::sm90
