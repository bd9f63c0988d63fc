// The activation between an expert's two products, and its gradient, over the rows of a plan, in their
// plainest form: every activation, element type and width.
#pragma once

#include <cuda_runtime_api.h>

#include "motley/kernels/cuda/activation.h"
#include "motley/kernels/cuda/element.h"
#include "motley/kernels/cuda/plain/products.h"

namespace motley::cuda::plain {

// activated [max_rows, F] = activation of hidden [max_rows, G], for rows before the last expert's end.
void activate(const Activation& activation, const void* hidden, Element element, int expert_width,
              const int* expert_offset, int num_experts, int max_rows, void* activated, cudaStream_t stream);

struct RowsGradient {
  const float* dactivated;    // [max_rows, F]: dY W_down of each row
  const void* hidden;         // [max_rows, G]
  const float* gate_weights;  // by assignment
  const int* row_assignment;
  Rows dy;                // by row, for the bias's part of dgate_weights
  const void* down_bias;  // [places, D], or null
  int model_width, expert_width;
  void *dhidden, *activated;  // [max_rows, G]; [max_rows, F] gate weight times A
  float* dgate_weights;       // by assignment: <dactivated, A> + <dY, b_down>
};

// For the rows of experts that are here; others are left alone.
void activate_backward(const Activation& activation, Element element, const RowsGradient& gradient,
                       const Places& places, int max_rows, cudaStream_t stream);

// y[t] = sum over k, in order, of gate_weights[t, k] rows[token_rows[t, k]], in fp32, rounded once;
// choices without a row (-1) are passed over; gate_weights may be null for ones.
void token_sum(const void* rows, Element element, const float* gate_weights, const int* token_rows,
               int num_tokens, int top_k, int width, const Output& y, cudaStream_t stream);

}  // namespace motley::cuda::plain
