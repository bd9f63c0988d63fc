// The zero-computation experts (MoE++, arXiv 2410.07348, Eq. 3-5) of every token in one pass, with their
// gradients. Sums are fp32 in a fixed order, without atomics.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "motley/kernels/cuda/element.h"

namespace motley::cuda {

constexpr int kMaxZeroExperts = 1024;
constexpr short kGivesNothing = -2, kGivesX = -1;

struct ZeroExpertLayer {
  const void* x;  // [T, D]
  Element element;
  const int* slots;      // [T, K]; slot first_slot + z is zero-computation expert z
  const float* weights;  // [T, K]
  int num_tokens, top_k, width, first_slot;
  int num_experts;  // Z
  int num_constant;
  Element parameters;            // of constant and constant_gate: x's, or fp32
  const void* constant;          // v [Z_constant, D]
  const void* constant_gate;     // W_c [Z_constant, 2, D]
  short gives[kMaxZeroExperts];  // kGivesNothing (Eq. 3), kGivesX (Eq. 4), or which constant expert's mix
                                 // (Eq. 5)
};

// What a token's choices add up to, rounded once: first its experts' rows, in the order of its choices, then
// x, then the vectors of constant experts. (The kernel for a few tokens, sm90/decode.cu, adds x last.)
struct ZeroExpertSum {
  const void* rows = nullptr;       // [max_rows, D] of x's type, or null: the zero-computation experts alone
  const int* token_rows = nullptr;  // [T, K]; -1: without a row
  void* y;                          // [T, D]
  bool y_fp32;                      // else of x's type
};
void zero_experts(const ZeroExpertLayer& layer, const ZeroExpertSum& sum, cudaStream_t stream);

struct ZeroExpertGradients {
  const void* dy;         // [T, D]
  bool dy_fp32;           // else of x's type
  void* dx;               // [T, D], of x's type
  float* dweights;        // [T, K]
  float* dconstant;       // [Z_constant, D]
  float* dconstant_gate;  // [Z_constant, 2, D]
};
// Takes parameters in fp32.
size_t zero_experts_backward_workspace_bytes(const ZeroExpertLayer& layer);
void zero_experts_backward(const ZeroExpertLayer& layer, const ZeroExpertGradients& gradients,
                           void* workspace, cudaStream_t stream);

}  // namespace motley::cuda
