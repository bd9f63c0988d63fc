#include "motley/models/decoder/decoder_lm.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "motley/models/decoder/recomputed_layer.h"
#include "motley/nn/projection.h"
#include "motley/nn/rms_norm.h"
#include "motley/ops/part.h"

namespace motley {
namespace {

void check(const PackedBatch& batch, const ForwardOptions& options) {
  TORCH_CHECK(batch.ids.defined() && batch.ids.dim() == 1 && batch.ids.scalar_type() == at::kLong &&
                  batch.positions.defined() && batch.positions.sizes() == batch.ids.sizes(),
              "[DecoderLm] expected ids and positions [T] int64, got ", batch.ids.sizes(), " and ",
              batch.positions.sizes());
  TORCH_CHECK(options.cache == nullptr || !options.training,
              "[DecoderLm] expected no cache in training: attention over a cache has no gradients");
}

}  // namespace

DecoderLm::DecoderLm(const DecoderOptions& options, nlohmann::json config)
    : options_(options),
      config_(std::move(config)),
      rotary_(options.max_positions, options.attention.head_dim, options.rope_theta) {
  const std::vector<int64_t> vocabulary = {options.vocab_size, options.hidden_size()};
  embedding_ = at::zeros(vocabulary, options.dtype);
  bool first_sparse = true;
  for (int64_t index = 0; index < options.num_layers(); ++index) {
    layers_.emplace_back(options, index, first_sparse);
    first_sparse = first_sparse && !options.sparse[index];
  }
  norm_ = at::ones({options.hidden_size()}, options.dtype);
  if (!options.tie_word_embeddings) head_ = at::zeros(vocabulary, options.dtype);
}

at::Tensor DecoderLm::embed(const at::Tensor& ids) const {
  const Part part("embedding");
  return at::embedding(embedding_, ids);
}

CausalLmOutput DecoderLm::forward(const PackedBatch& given, const ForwardOptions& options) {
  check(given, options);
  PackedBatch batch = given;
  batch.ids = given.ids.to(device());
  batch.positions = given.positions.to(device());
  const auto observe = [&](const char* name, const at::Tensor& value) {
    if (options.observe) options.observe(name, value);
  };
  DecoderState state{batch, options, rotary_, embed(batch.ids), {}, {}};
  observe("model.embed_tokens", state.x);
  const bool recompute = options.recompute && at::GradMode::is_enabled();
  for (const DecoderLayer& layer : layers_) {
    recompute ? forward_recomputed(layer, state) : layer.forward(state);
  }
  if (options.cache != nullptr && !options.cache_block_table.defined()) {
    for (int64_t b = 0; b < batch.num_sequences(); ++b) {
      options.cache->commit(options.cache_sequences[b],
                            batch.sequence_offset[b + 1] - batch.sequence_offset[b]);
    }
  }
  at::Tensor x = state.x;
  if (options.output_rows.defined()) x = x.index_select(0, options.output_rows.to(device()));
  x = rms_norm(x, norm_, options_.rms_norm_eps);
  {
    const Part part("head");
    state.output.logits = project(x, head_.defined() ? head_ : embedding_);
  }
  observe("lm_head", state.output.logits);
  return std::move(state.output);
}

std::vector<Gate*> DecoderLm::gates() {
  std::vector<Gate*> gates;
  for (DecoderLayer& layer : layers_) {
    if (layer.moe() != nullptr) gates.push_back(&layer.moe()->gate());
  }
  return gates;
}

std::vector<int64_t> DecoderLm::num_experts() const {
  int64_t sparse = 0;
  for (const bool is_sparse : options_.sparse) sparse += is_sparse;
  return std::vector<int64_t>(sparse, options_.moe.gate.num_experts);
}

void DecoderLm::visit(const TensorVisitor& visitor) {
  visitor("model.embed_tokens.weight", embedding_, TensorRole::kParameter);
  for (DecoderLayer& layer : layers_) layer.visit(visitor);
  visitor("model.norm.weight", norm_, TensorRole::kParameter);
  if (head_.defined()) visitor("lm_head.weight", head_, TensorRole::kParameter);
}

void DecoderLm::to(at::Device device) {
  visit([&](const std::string&, at::Tensor& tensor, TensorRole) { tensor = tensor.to(device); });
  rotary_.to(device);
}

KvCacheShape DecoderLm::kv_cache_shape() const {
  return {options_.num_layers(), options_.attention.num_kv_heads, options_.attention.head_dim};
}

}  // namespace motley
