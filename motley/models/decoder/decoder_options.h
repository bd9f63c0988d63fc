// The shape of a generic decoder language model; families translate their config.json into it.
#pragma once

#include <cstdint>
#include <vector>

#include "motley/layers/moe_options.h"
#include "motley/nn/attention.h"
#include "motley/ops/activation.h"

namespace motley {

struct DecoderOptions {
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  AttentionOptions attention;  // hidden_size stands here
  double rope_theta = 10000.0;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  std::vector<int64_t> end_tokens;  // end a generation
  std::vector<bool> sparse;         // a layer each: MoE feed-forward, or a dense one
  int64_t dense_width = 0;          // of dense layers; required where there are any
  Activation dense_activation;      // gated
  MoeLayerOptions moe;              // of every sparse layer; its gate.hidden_size is the model's
  // Whether the first MoE layer has a residual weight too, which nothing reads (published MoE++ models).
  bool first_gate_residual = false;
  at::ScalarType dtype = at::kFloat;

  int64_t hidden_size() const { return attention.hidden_size; }
  int64_t num_layers() const { return static_cast<int64_t>(sparse.size()); }
};

}  // namespace motley
