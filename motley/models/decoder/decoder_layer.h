// One transformer block: attention, then a dense or MoE feed-forward, each behind RMSNorm and a residual.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "motley/layers/moe_block.h"
#include "motley/models/causal_lm.h"
#include "motley/models/decoder/decoder_options.h"
#include "motley/nn/feed_forward.h"

namespace motley {

// What one forward pass carries from layer to layer.
struct DecoderState {
  const PackedBatch& batch;
  const ForwardOptions& options;
  const RotaryTable& rotary;
  at::Tensor x;                // [T, D]
  at::Tensor previous_logits;  // [T, S] of the last MoE layer, undefined before the first
  CausalLmOutput output;       // routings are added as layers run
};

class DecoderLayer {
 public:
  // first_sparse: no MoE layer stands before this one, so there are no logits to take a residual from.
  DecoderLayer(const DecoderOptions& options, int64_t index, bool first_sparse);

  void forward(DecoderState& state) const;
  // Names: input_layernorm.weight, self_attn.*, post_attention_layernorm.weight, mlp.*.
  void visit(const TensorVisitor& visitor);
  MoeBlock* moe() { return moe_.get(); }  // null in a dense layer

 private:
  at::Tensor feed_forward(const at::Tensor& x, DecoderState& state) const;

  int64_t index_;
  std::string prefix_;  // "model.layers.3."
  double eps_;
  at::Tensor attention_norm_, feed_forward_norm_;  // [D]
  Attention attention_;
  std::optional<FeedForward> dense_;
  std::unique_ptr<MoeBlock> moe_;
};

}  // namespace motley
