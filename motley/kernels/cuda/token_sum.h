// Between tokens and the rows of a plan: sums in a fixed order, in fp32, without atomics, and copies.
#pragma once

#include <cuda_runtime_api.h>

#include "motley/kernels/cuda/expert_products.h"

namespace motley::cuda {

// y[t] = sum over k, in order, of gate_weights[t, k] * rows[token_rows[t, k]], rounded once. Choices without
// a row are passed over. rows [max_rows, D] of `type` and y [T, D] (of `type`, or fp32) contiguous, D
// divisible by 8; gate_weights [T, K], or null for ones.
void token_sum(DataType type, const void* rows, const float* gate_weights, const int* token_rows,
               int num_tokens, int top_k, int width, void* y, bool y_fp32, cudaStream_t stream);

// rows[token_rows[t, k]] = x[t], each token read once; choices without a row are passed over. x [T, D] with D
// divisible by 8, rows [max_rows, D] contiguous.
void copy_to_rows(const ExpertShape& shape, const int* token_rows, const void* x, long x_stride, void* rows,
                  cudaStream_t stream);

// token_rows [T, K] of a plan that is known by row: the row of each choice, -1 without one.
void invert_rows(const ExpertShape& shape, const int* row_assignment, int* token_rows, cudaStream_t stream);

// dgate_weights[t, k] = sum over parts, in order, of partial[part][token_rows[t, k]] (+ <dy[t], down_bias of
// the row's expert>); 0 without a row. partial [num_parts, max_rows]; dy is read only where there is a bias.
void gate_weight_sum(const ExpertShape& shape, const ExpertPlan& plan, const float* partial, int num_parts,
                     const int* token_rows, const void* dy, long dy_stride, PlacedBias down_bias,
                     float* dgate_weights, cudaStream_t stream);

// present[a] = token_rows[a] where the row's expert has a place, else -1.
void present_rows(const ExpertShape& shape, const ExpertPlan& plan, const int* token_rows, int* present,
                  cudaStream_t stream);

// Sums of each expert's rows: of `values` by row [max_rows, width], or by token [T, width] times the row's
// gate weight (a bias's gradients). gate_weights null: ones. Experts without rows give zeros.
struct ExpertSum {
  const void* values;
  long stride;
  bool by_token;
  int width;
  const float* gate_weights;
  Gradient out;  // [P, width]
};
void expert_sum(const ExpertShape& shape, const ExpertPlan& plan, const ExpertSum& sum, cudaStream_t stream);

}  // namespace motley::cuda
