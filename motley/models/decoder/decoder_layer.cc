#include "motley/models/decoder/decoder_layer.h"

#include <ATen/ops/add.h>
#include <ATen/ops/ones.h>

#include "motley/nn/rms_norm.h"

namespace motley {

DecoderLayer::DecoderLayer(const DecoderOptions& options, int64_t index, bool first_sparse)
    : index_(index),
      prefix_("model.layers." + std::to_string(index) + "."),
      eps_(options.rms_norm_eps),
      attention_norm_(at::ones({options.hidden_size()}, options.dtype)),
      feed_forward_norm_(at::ones({options.hidden_size()}, options.dtype)),
      attention_(options.attention, options.dtype) {
  if (!options.sparse[index]) {
    dense_.emplace(options.hidden_size(), options.dense_width, options.dense_activation, options.dtype);
    return;
  }
  MoeLayerOptions moe = options.moe;
  moe.dtype = options.dtype;
  if (first_sparse && !options.first_gate_residual) moe.gate.gating_residual = false;
  moe_ = make_moe_layer(moe);
}

at::Tensor DecoderLayer::feed_forward(const at::Tensor& x, DecoderState& state) const {
  if (dense_) return dense_->forward(x);
  GateInput input;
  input.x = x;
  input.previous_logits = state.previous_logits;
  input.training = state.options.training;
  input.generator = state.options.generator;
  auto [y, routing] = moe_->forward(input);
  state.previous_logits = routing.logits;
  state.output.routings.push_back(std::move(routing));
  state.output.moe_layers.push_back(index_);
  return y;
}

void DecoderLayer::forward(DecoderState& state) const {
  const auto observe = [&](const char* block) {
    if (state.options.observe) state.options.observe(prefix_ + block, state.x);
  };
  const CacheView view = {state.options.cache, index_, &state.options.cache_sequences,
                          state.options.cache_block_table};
  const at::Tensor attention_input = rms_norm(state.x, attention_norm_, eps_);
  state.x = at::add(state.x, attention_.forward(attention_input, state.batch, state.rotary, view));
  observe("self_attn");
  state.x = at::add(state.x, feed_forward(rms_norm(state.x, feed_forward_norm_, eps_), state));
  observe("mlp");
}

void DecoderLayer::visit(const TensorVisitor& visitor) {
  visitor(prefix_ + "input_layernorm.weight", attention_norm_, TensorRole::kParameter);
  attention_.visit(prefix_ + "self_attn.", visitor);
  visitor(prefix_ + "post_attention_layernorm.weight", feed_forward_norm_, TensorRole::kParameter);
  if (dense_) dense_->visit(prefix_ + "mlp.", visitor);
  if (moe_) moe_->visit(prefix_ + "mlp.", visitor);
}

}  // namespace motley
