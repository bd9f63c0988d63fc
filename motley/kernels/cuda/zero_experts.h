// The zero-computation experts (MoE++, arXiv 2410.07348, Eq. 3-5) of every token in one pass, with their
// gradients. Sums are fp32 in a fixed order, without atomics.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "motley/kernels/cuda/element.h"

namespace motley::cuda {

constexpr int kMaxZeroExperts = 1024;

enum class ZeroExpertKind : signed char { kZero, kCopy, kConstant };

struct ZeroExpertLayer {
  const void* x;  // [T, D]
  Element element;
  const int* slots;      // [T, K]; slot first_slot + z is zero-computation expert z
  const float* weights;  // [T, K]
  int num_tokens, top_k, width, first_slot;
  int num_experts;  // Z
  int num_constant;
  ZeroExpertKind kinds[kMaxZeroExperts];
  short constant_of[kMaxZeroExperts];  // which constant expert it is
  const float* constant;               // v [Z_constant, D]
  const float* constant_gate;          // W_c [Z_constant, 2, D]
};

// y [T, D] = sum over k, in order, of weights[t, k] E(x[t]) for the choices that are zero-computation
// experts.
void zero_experts(const ZeroExpertLayer& layer, float* y, cudaStream_t stream);

struct ZeroExpertGradients {
  const float* dy;        // [T, D]
  void* dx;               // [T, D], of x's type
  float* dweights;        // [T, K]
  float* dconstant;       // [Z_constant, D]
  float* dconstant_gate;  // [Z_constant, 2, D]
};
size_t zero_experts_backward_workspace_bytes(const ZeroExpertLayer& layer);
void zero_experts_backward(const ZeroExpertLayer& layer, const ZeroExpertGradients& gradients,
                           void* workspace, cudaStream_t stream);

}  // namespace motley::cuda
