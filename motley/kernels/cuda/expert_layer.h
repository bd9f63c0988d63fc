// One SwiGLU-style expert layer over given routing on Hopper: the kernels in their order, with the
// scratch that they share. bf16; D and F divisible by 8.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>

#include "motley/kernels/cuda/sm90/expert_products.h"

namespace motley::cuda {

using sm90::ExpertPlan;
using sm90::ExpertShape;
using sm90::PlacedWeights;

// A bump allocator over memory of the caller: the same walk gives sizes (base null) and pointers.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(size_t count) {
    T* taken = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (count * sizeof(T) + 255) / 256 * 256;
    return taken;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

struct ExpertLayerForward {
  const __nv_bfloat16* x;     // [T, D]
  const float* gate_weights;  // [T, K]
  PlacedWeights gate_up, down;
  GatedActivation activation;
  __nv_bfloat16* hidden;  // [max_rows, 2F], kept for backward; null in inference
  __nv_bfloat16* y;       // [T, D]
};
// Scratch: activated [max_rows, F] and rows [max_rows, D].
size_t expert_layer_forward_workspace_bytes(const ExpertShape& shape);
void expert_layer_forward(const ExpertShape& shape, const ExpertPlan& plan, const int* token_rows,
                          const ExpertLayerForward& layer, void* workspace, cudaStream_t stream);

struct ExpertLayerBackward {
  const __nv_bfloat16 *x, *dy;  // [T, D]
  const float* gate_weights;    // [T, K]
  PlacedWeights gate_up, down;
  GatedActivation activation;
  const __nv_bfloat16* hidden;  // [max_rows, 2F]
  __nv_bfloat16* dx;            // [T, D]
  float* dgate_weights;         // [T, K]
  __nv_bfloat16 *dgate_up, *ddown;
  long dgate_up_stride, ddown_stride;  // between places
};
// Scratch: dhidden [max_rows, 2F], weighted [max_rows, F], rows [max_rows, D] and the parts of the gate
// weights' gradients.
size_t expert_layer_backward_workspace_bytes(const ExpertShape& shape);
void expert_layer_backward(const ExpertShape& shape, const ExpertPlan& plan, const int* token_rows,
                           const ExpertLayerBackward& layer, void* workspace, cudaStream_t stream);

}  // namespace motley::cuda
