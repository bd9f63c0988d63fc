// One wave of experts as the operators of the feed-forward get it, as the kernels take it.
#pragma once

#include "motley/kernels/cuda/expert_layer.h"
#include "motley/kernels/cuda/plain/activation.h"
#include "motley/ops/activation.h"
#include "motley/ops/cuda_tensors.h"

namespace motley::ops {

// Whether the fast kernels take rows of these widths; the plain ones take everything.
bool fast_kernels_take(at::ScalarType dtype, int64_t num_experts, std::initializer_list<int64_t> widths);
// Whether they can read weights [P, .., ..] where they lie.
bool fast_kernels_read(const at::Tensor& weight);

cuda::DataType data_type_of(at::ScalarType dtype);  // of what fast_kernels_take
cuda::Activation activation_of(int64_t kind, double alpha, double limit);

struct CudaExperts {
  const at::Tensor &row_assignment, &expert_offset;
  int64_t num_tokens, top_k;
  const at::Tensor &gate_up, &down;
  const OptionalTensor &gate_up_bias, &down_bias, &place_of_expert;
  cuda::Activation activation;

  int64_t max_rows() const { return row_assignment.size(0); }
  int64_t num_experts() const { return expert_offset.size(0) - 1; }
  int64_t model_width() const { return down.size(1); }
  int64_t expert_width() const { return down.size(2); }

  bool fast() const;
  // What the fast kernels take; token_rows may be null where the call does not add up.
  cuda::ExpertLayer layer(const cuda::TileSchedule& schedule, const int* token_rows) const;
};

}  // namespace motley::ops
