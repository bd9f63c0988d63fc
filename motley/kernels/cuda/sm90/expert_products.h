// The six grouped products of an expert layer on Hopper. bf16; rows of a plan; weights in Hugging Face's
// layout: gate_up [P, 2F, D] (gate rows first), down [P, D, F]. D and F divisible by 8, pointers 16-byte
// aligned, any stride between places. Nothing is written for experts that have no place.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "motley/kernels/cuda/gated_activation.h"
#include "motley/kernels/cuda/routing_plan.h"

namespace motley::cuda::sm90 {

struct ExpertShape {
  int num_tokens, top_k, num_experts, num_places;
  int model_width;   // D
  int expert_width;  // F
  int max_rows;      // of every array by row
};

struct ExpertPlan {
  const int* row_assignment;   // [max_rows]
  const int* expert_offset;    // [E + 1]
  const int* place_of_expert;  // [E], or null where expert e is at place e
  TileSchedule schedule;
};

struct PlacedWeights {
  const __nv_bfloat16* data;
  long stride;  // between places, in elements
};

// hidden [max_rows, 2F] = x[token] W_gate_up^T, activated [max_rows, F]; hidden may be null.
void expert_up(const ExpertShape& shape, const ExpertPlan& plan, const GatedActivation& activation,
               const __nv_bfloat16* x, long x_stride, PlacedWeights gate_up, __nv_bfloat16* hidden,
               __nv_bfloat16* activated, cudaStream_t stream);

// rows [max_rows, D] = activated W_down^T.
void expert_down(const ExpertShape& shape, const ExpertPlan& plan, const __nv_bfloat16* activated,
                 PlacedWeights down, __nv_bfloat16* rows, cudaStream_t stream);

// The number of parts in which expert_dhidden leaves the gate weights' gradients.
int num_gate_parts(const ExpertShape& shape);

// With dA' = dy[token] W_down and w the row's gate weight: dhidden [max_rows, 2F] (gradient of hidden for
// w dA'), weighted [max_rows, F] = w A with A recomputed from hidden, and
// gate_parts [num_gate_parts, max_rows]: sums over 256 columns of dA' A.
void expert_dhidden(const ExpertShape& shape, const ExpertPlan& plan, const GatedActivation& activation,
                    const __nv_bfloat16* dy, long dy_stride, PlacedWeights down, const __nv_bfloat16* hidden,
                    const float* gate_weights, __nv_bfloat16* dhidden, __nv_bfloat16* weighted,
                    float* gate_parts, cudaStream_t stream);

// rows [max_rows, D] = dhidden W_gate_up.
void expert_dx(const ExpertShape& shape, const ExpertPlan& plan, const __nv_bfloat16* dhidden,
               PlacedWeights gate_up, __nv_bfloat16* rows, cudaStream_t stream);

// ddown [P, D, F] = dy[token]^T weighted over each expert's rows; zeros for an expert without rows.
void expert_ddown(const ExpertShape& shape, const ExpertPlan& plan, const __nv_bfloat16* dy, long dy_stride,
                  const __nv_bfloat16* weighted, __nv_bfloat16* ddown, long ddown_stride,
                  cudaStream_t stream);

// dgate_up [P, 2F, D] = dhidden^T x[token] over each expert's rows; zeros for an expert without rows.
void expert_dgate_up(const ExpertShape& shape, const ExpertPlan& plan, const __nv_bfloat16* x, long x_stride,
                     const __nv_bfloat16* dhidden, __nv_bfloat16* dgate_up, long dgate_up_stride,
                     cudaStream_t stream);

}  // namespace motley::cuda::sm90
