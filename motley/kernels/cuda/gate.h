// The gate after its logits in one kernel, forward and backward: scores, the choice of slots, their weights
// and the load. A warp a token; everything in fp32.
#pragma once

#include <cuda_runtime_api.h>

#include "motley/kernels/cuda/element.h"

namespace motley::cuda {

constexpr int kMaxSlots = 2048;
constexpr int kMaxChoices = 32;

enum class GateNormalisation { kNone, kTopK, kTopKExceptZero };

struct GateRule {
  int num_slots, top_k;
  // Each token's logits over their own standard deviation (unbiased; not at all where it is 0), times
  // norm_std, before the softmax.
  bool standardise;
  float norm_std;
  GateNormalisation normalisation;
  float scale;                       // multiplies the weights last
  unsigned is_zero[kMaxSlots / 32];  // bits of the slots of zero experts, for kTopKExceptZero
};

struct GateSelection {
  const float* logits;          // [T, S]
  const float* selection_bias;  // [S] added to the scores for the choice alone, or null
  const bool* token_mask;       // [T]: false tokens get slots -1 and weights 0; or null
  int num_tokens;
  int* slots;                // [T, K], best first; of equals the lower slot
  float* weights;            // [T, K]
  float* scores;             // [T, S], or null
  unsigned long long* load;  // [S]: choices of each slot
};
void select_slots(const GateRule& rule, const GateSelection& selection, cudaStream_t stream);

struct GateGradient {
  const float* logits;    // [T, S]
  const int* slots;       // [T, K], as chosen; -1: no gradient
  const float* dweights;  // [T, K], or null
  const float* dscores;   // [T, S], or null
  int num_tokens;
  float* dlogits;  // [T, S]
};
void select_slots_backward(const GateRule& rule, const GateGradient& gradient, cudaStream_t stream);

// logits [T, S] = x W^T + previous W_g^T in fp32, for few tokens (each slot's row is read once per token);
// previous [T, S] and residual [S, S] may be null.
void gate_logits(const void* x, Element x_type, const void* weight, Element weight_type,
                 const float* previous, const void* residual, int num_tokens, int width, int num_slots,
                 float* logits, cudaStream_t stream);

}  // namespace motley::cuda
