// An expert layer over given routing: the kernels in their order, with the scratch that they share.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "motley/kernels/cuda/expert_products.h"
#include "motley/kernels/cuda/zero_experts.h"

namespace motley::cuda {

// A bump allocator over memory of the caller: the same walk gives sizes (base null) and pointers.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(size_t count) {
    return static_cast<T*>(take_bytes(count * sizeof(T)));
  }
  void* take_bytes(size_t bytes) {
    void* taken = base_ ? base_ + used_ : nullptr;
    used_ += (bytes + 255) / 256 * 256;
    return taken;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

struct ExpertLayer {
  Family family;
  ExpertShape shape;
  ExpertPlan plan;
  const int* token_rows;  // [T * K], of the same plan
  Activation activation;
  PlacedWeights gate_up, down;  // [P, G, D], [P, D, F]
  PlacedBias gate_up_bias, down_bias;
};

// Unweighted output rows [max_rows, D] of the experts that are here; hidden [max_rows, G] is kept unless
// null. x is [T, D], or by row [max_rows, D] and then may be `rows` itself. Scratch: activated [max_rows, F].
size_t expert_rows_workspace_bytes(const ExpertShape& shape);
void expert_rows(const ExpertLayer& layer, const void* x, long x_stride, bool x_by_token, void* hidden,
                 void* rows, void* workspace, cudaStream_t stream);

// y[t] = sum over k of gate_weights[t, k] times the output row, and what zero-computation experts give,
// rounded once; y [T, D] in the rows' type, or fp32. Choices without a row here add nothing. Scratch:
// activated [max_rows, F] and rows [max_rows, D].
//
// A few tokens (few_tokens) take one launch that reads every weight once and keeps no hidden. Given slots
// [T * K], it makes its plan from them and reads neither the layer's plan (but place_of_expert) nor its
// token_rows. Launches of several streams may overlap, and graphs of several captures; launches of one graph,
// its clones among them, may not: the counters through which blocks work together belong to a stream or to a
// capture. std::runtime_error where 4096 of these are in use.
struct ExpertLayerForward {
  const void* x;  // [T, D]
  long x_stride;
  const float* gate_weights;  // [T * K]
  void* hidden;               // [max_rows, G], kept for backward; null in inference
  void* y;
  bool y_fp32 = false;
  const int* slots = nullptr;
  const ZeroExpertLayer* zero_experts = nullptr;  // of the same x and choices
  bool many_tokens = false;                       // the path for many tokens in any case
};
bool few_tokens(Family family, const ExpertShape& shape, const ZeroExpertLayer* zero_experts = nullptr);
size_t expert_layer_forward_workspace_bytes(const ExpertShape& shape);
void expert_layer_forward(const ExpertLayer& layer, const ExpertLayerForward& forward, void* workspace,
                          cudaStream_t stream);

// dx [T, D], dgate_weights [T * K] (zeros without a row here), and what the weight gradients need: dhidden
// [max_rows, G] and weighted [max_rows, F], whose rows of absent experts are left alone. The gradient of
// `down`, if it is wanted at once: where wants_shared_copy, a copy of dy in the plan's order serves both.
// Scratch: rows [max_rows, D], for one thing after the other; parts of the gate weights' gradients, the
// present token rows, outer_scratch_size.
struct ExpertLayerBackwardInput {
  const void* dy;  // [T, D]
  long dy_stride;
  const float* gate_weights;
  const void* hidden;
  void* dx;
  bool dx_fp32 = false;
  float* dgate_weights;
  void *dhidden, *weighted;
  Gradient down;
};
size_t expert_layer_backward_input_workspace_bytes(const ExpertShape& shape);
void expert_layer_backward_input(const ExpertLayer& layer, const ExpertLayerBackwardInput& backward,
                                 void* workspace, cudaStream_t stream);

// Gradients that do not accumulate are overwritten at all places, with zeros where there is no expert or no
// row; every one may be null. The layer's token_rows may be null. Scratch: rows [max_rows, D] where
// wants_copy, for one thing after the other; token rows, outer_scratch_size.
struct ExpertLayerBackwardWeight {
  const void* dy;  // [T, D]
  long dy_stride;
  const void* x;  // [T, D]
  long x_stride;
  const float* gate_weights;
  const void *dhidden, *weighted;
  Gradient gate_up, down, gate_up_bias, down_bias;
};
size_t expert_layer_backward_weight_workspace_bytes(const ExpertLayer& layer);
void expert_layer_backward_weight(const ExpertLayer& layer, const ExpertLayerBackwardWeight& backward,
                                  void* workspace, cudaStream_t stream);

// The bytes, and the schedule of row tiles taken from them, that an ExpertPlan needs beside a routing plan:
// tile_schedule or routing_plan writes it.
size_t tile_schedule_bytes(int max_rows, int num_experts);
TileSchedule take_tile_schedule(int max_rows, int num_experts, void* memory);

}  // namespace motley::cuda
