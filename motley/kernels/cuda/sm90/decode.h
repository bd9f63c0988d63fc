// The expert layer for a few tokens: one launch reads every weight of the chosen experts once.
#pragma once

#include "motley/kernels/cuda/expert_layer.h"

namespace motley::cuda::sm90 {

struct Decode {
  const void* x;  // [T, D]
  long x_stride;
  const int* slots;           // [T * K]: the plan is made from these; null: it is the layer's
  const float* gate_weights;  // [T * K]
  void *activated, *rows;     // [max_rows, F], [max_rows, D]
  void* y;                    // [T, D]
  bool y_fp32;
  const ZeroExpertLayer* zero_experts;  // of the same x and choices, or null
  float* mixes;                         // [T * K, 2], where there are zero-computation experts
};

constexpr int kDecodeTokens = 64, kDecodeAssignments = 1024;
constexpr bool decode_fits(const ExpertShape& shape) {
  return shape.num_tokens <= kDecodeTokens && shape.num_tokens * shape.top_k <= kDecodeAssignments &&
         shape.max_rows > 0 && shape.num_experts <= kMaxExperts && shape.type == DataType::kBf16;
}

void expert_decode(const ExpertLayer& layer, const Decode& decode, cudaStream_t stream);

}  // namespace motley::cuda::sm90
