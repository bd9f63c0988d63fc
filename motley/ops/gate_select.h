// The gate after its logits in one kernel, and on a GPU its logits for few tokens. For more slots or choices
// than these take the gate is made of ATen's operators (motley/routing/softmax_gate.cc), which these agree
// with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace motley::ops {

enum class GateNormalisation : int64_t { kNone, kTopK, kTopKExceptZero };

struct GateRule {
  int64_t top_k = 1;
  bool standardise = false;  // logits over their own standard deviation, times norm_std
  double norm_std = 1;
  GateNormalisation normalisation = GateNormalisation::kNone;
  std::vector<int64_t> zero_slots;  // of weight 0 for kTopKExceptZero
  double scale = 1;
};

// Whether gate_select takes these: not too many slots or choices.
bool gate_select_takes(const at::Tensor& logits, int64_t top_k);

struct GateSelected {
  at::Tensor slots;    // [T, K] int32, best first, of equals the lower slot; -1 where the mask is false
  at::Tensor weights;  // [T, K] fp32
  at::Tensor scores;   // [T, S] fp32
  at::Tensor load;     // [S] int64: choices of each slot
};

// logits [T, S] fp32; selection_bias [S] fp32 is added to the scores for the choice alone; token_mask [T]
// bool. Weights and scores are differentiable in logits.
GateSelected gate_select(const at::Tensor& logits, const std::optional<at::Tensor>& selection_bias,
                         const std::optional<at::Tensor>& token_mask, const GateRule& rule);

// x W^T + previous W_g^T [T, S] in fp32 without copies of x and W in fp32. Not differentiable; each token
// reads all of W, so it is for few tokens. previous and residual together or not at all.
at::Tensor gate_logits(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& previous, const std::optional<at::Tensor>& residual);

}  // namespace motley::ops
