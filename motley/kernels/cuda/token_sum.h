// Per-token sums over the rows of a plan, in the order of the choices, in fp32, without atomics.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace motley::cuda {

// y[t] = sum over k of gate_weights[t, k] * rows[token_rows[t, k]], rounded once. Choices without a row
// are passed over. rows [max_rows, D] and y [T, D] contiguous, D divisible by 8; gate_weights [T, K], or
// null for ones. Out is bf16 or float.
template <class Out>
void token_sum(const __nv_bfloat16* rows, const float* gate_weights, const int* token_rows, int num_tokens,
               int top_k, int width, Out* y, cudaStream_t stream);

// dgate_weights[t, k] = sum over parts, in order, of partial[part][token_rows[t, k]]; 0 without a row.
// partial [num_parts, part_stride].
void gate_weight_sum(const float* partial, int num_parts, long part_stride, const int* token_rows,
                     int num_assignments, float* dgate_weights, cudaStream_t stream);

}  // namespace motley::cuda
