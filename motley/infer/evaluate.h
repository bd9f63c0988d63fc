// Loss of a model on a text.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "motley/infer/packed_windows.h"
#include "motley/models/causal_lm.h"

namespace motley {

struct EvaluationOptions {
  int64_t window = 0;         // predicted tokens a window; 0: min(max_positions, 512)
  int64_t batch_windows = 8;  // windows in one forward pass
  int64_t max_windows = 0;    // evenly spread over the text; 0: all
  // Asked before each forward pass; true ends the evaluation early.
  std::function<bool()> interrupted = {};
};

struct Evaluation {
  double loss = 0;                            // mean nats a predicted token
  int64_t num_tokens = 0;                     // predicted
  std::vector<double> ffn_experts_per_token;  // of each MoE layer
  bool interrupted = false;                   // the figures above then mean nothing
  // The windows of the forward pass with which `loss` stopped being finite; the evaluation ended there.
  std::vector<TokenWindow> not_finite;
};

// Consecutive windows of `window` predicted tokens, each seen without what came before it; the last one
// may be shorter. progress(done, of) counts windows, from 0.
// Throws UserError: fewer than two tokens, an id outside the vocabulary, a window beyond max_positions.
Evaluation evaluate(CausalLm& model, const TokenSpan& tokens, const EvaluationOptions& options,
                    const std::function<void(int64_t done, int64_t of)>& progress = {});

// Logits [L, V] fp32 of every position of each prompt; the prompts run as one packed batch.
std::vector<at::Tensor> prompt_logits(CausalLm& model, const std::vector<std::vector<int64_t>>& prompts);

}  // namespace motley
