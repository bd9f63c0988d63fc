// The expert layer as one builds it from CUTLASS's own parts: rows gathered into scratch, grouped products
// by its ptr-array TMA collectives, activations by kernels of their own. What the fused kernels are measured
// and checked against; no part of the library. bf16, SwiGLU, no bias, all experts resident; every expert
// needs a row in backward (the collectives have no products of depth 0).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

namespace motley::cuda::baseline {

struct Problem {
  int num_tokens, model_width, expert_width, num_experts, top_k;
  const __nv_bfloat16 *x, *dy;                             // [T, D]
  const __nv_bfloat16 *gate_up, *down;                     // [E, 2F, D], [E, D, F]
  const float *gate_weights;                               // [T, K]
  const int *row_assignment, *expert_offset, *token_rows;  // of a plan; may be written later
};

struct Results {
  __nv_bfloat16 *hidden;            // [T K, 2F], kept for backward
  __nv_bfloat16 *y, *dx;            // [T, D]
  float *dgate_weights;             // [T, K]
  __nv_bfloat16 *dgate_up, *ddown;  // as the weights
};

// One kernel or grouped product; units: its FLOPs over those of a product of all rows with D x F.
struct Step {
  const char *name;
  double units;
  std::function<void(cudaStream_t)> run;
};

// Owns its scratch. Nothing synchronises with the host once it is made.
class Layer {
 public:
  Layer(const Problem &problem, const Results &results);
  ~Layer();
  const std::vector<Step> &forward() const { return forward_; }
  const std::vector<Step> &backward() const { return backward_; }

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
  std::vector<Step> forward_, backward_;
};

inline void run(const std::vector<Step> &steps, cudaStream_t stream) {
  for (const Step &step : steps) step.run(stream);
}

}  // namespace motley::cuda::baseline
