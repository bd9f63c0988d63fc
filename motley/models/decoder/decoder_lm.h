// The generic decoder language model that the families configure.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "motley/models/decoder/decoder_layer.h"

namespace motley {

class DecoderLm : public CausalLm {
 public:
  // Norms are ones and other parameters zeros, to be initialised or loaded through visit().
  // config: what config() gives back. Throws UserError and c10::Error for options that do not fit.
  DecoderLm(const DecoderOptions& options, nlohmann::json config);

  CausalLmOutput forward(const PackedBatch& batch, const ForwardOptions& options) override;
  std::vector<Gate*> gates() override;
  std::vector<int64_t> num_experts() const override;
  // Names: model.embed_tokens.weight, model.layers.L.*, model.norm.weight, lm_head.weight unless tied.
  void visit(const TensorVisitor& visitor) override;
  nlohmann::json config() const override { return config_; }
  void to(at::Device device) override;
  at::Device device() const override { return embedding_.device(); }
  int64_t vocab_size() const override { return options_.vocab_size; }
  int64_t max_positions() const override { return options_.max_positions; }
  std::vector<int64_t> end_tokens() const override { return options_.end_tokens; }
  at::ScalarType dtype() const override { return options_.dtype; }
  KvCacheShape kv_cache_shape() const override;

 private:
  at::Tensor embed(const at::Tensor& ids) const;  // [T] -> [T, D]

  DecoderOptions options_;
  nlohmann::json config_;
  RotaryTable rotary_;
  at::Tensor embedding_;  // [V, D]
  std::vector<DecoderLayer> layers_;
  at::Tensor norm_;  // [D]
  at::Tensor head_;  // [V, D], undefined when tied to the embedding
};

}  // namespace motley
