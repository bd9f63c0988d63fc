// Kernels of causal attention within one sequence, on raw pointers: forward and backward of training and
// of prefill. Nothing of size L x L is kept; backward computes the scores again.
#pragma once

#include <cstdint>
#include <string>

#include "motley/kernels/cpu/types.h"

namespace motley {

// One head of one sequence (forward), or all query heads of one key-value head (backward).
// L tokens, hd head_dim. Values are of `type`; sums are fp32.
struct AttentionTask {
  kernels::DType type;
  int64_t length;               // L
  int64_t head_dim;             // hd
  int64_t num_heads;            // query heads here; they lie hd elements apart
  int64_t q_stride, kv_stride;  // elements from token to token
  int64_t lse_stride;           // floats from head to head
  float scale;
  const void *q, *k, *v;
  void* o;                    // forward writes it, backward reads it
  float* lse;                 // [num_heads, L]: log of the sum of the exponentials of a token's scores
  const void* d_o = nullptr;  // backward only, like q
  void *dq = nullptr, *dk = nullptr, *dv = nullptr;
  float* scratch;  // scratch_floats of them
};

struct AttentionKernels {
  void (*forward)(const AttentionTask& task);
  void (*backward)(const AttentionTask& task);
  int64_t (*scratch_floats)(int64_t length, int64_t head_dim);
};

// Of the family of kernels in use, or of one by its name: see motley/kernels/cpu/families.h.
const AttentionKernels& attention_kernels();
AttentionKernels attention_kernels(const std::string& family);

AttentionKernels attention_portable();
AttentionKernels attention_avx2();         // x86 only
AttentionKernels attention_avx512();       // x86 only
AttentionKernels attention_avx512_bf16();  // x86 only

}  // namespace motley
