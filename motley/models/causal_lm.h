// What every model family offers to training, evaluation and generation.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "motley/nn/kv_cache.h"
#include "motley/nn/packed_batch.h"
#include "motley/ops/parameters.h"
#include "motley/routing/gate.h"

namespace motley {

struct ForwardOptions {
  bool training = false;
  bool recompute = false;    // in training: keep each block's input alone, and run it again in backward
  KvCache* cache = nullptr;  // read and appended to; null: attention within the batch only
  std::vector<int64_t> cache_sequences;  // [B] with a cache: the cache's sequence of each of the batch's
  // [B, width] int32 on a GPU (KvCache::block_table): every sequence has one token, which stands at its
  // position in the cache. Nothing then depends on lengths that the host knows, so that the call can be
  // captured as a CUDA graph; the cache is not committed.
  at::Tensor cache_block_table;
  at::Tensor output_rows;                  // [R] int64: rows that get logits; undefined: all T
  std::optional<at::Generator> generator;  // for gates with noise
  // Called with the hidden states after each block ("model.layers.3.self_attn", "model.layers.3.mlp", as in
  // the tensors' names), and with "model.embed_tokens" and "lm_head": finds where values stop being finite.
  std::function<void(const std::string& name, const at::Tensor& value)> observe;
};

struct CausalLmOutput {
  at::Tensor logits;              // [R, V] in the model's dtype (training: fp32 losses are computed from it)
  std::vector<Routing> routings;  // of each MoE layer, in order
  std::vector<int64_t> moe_layers;  // the layer index of each routing
};

class CausalLm {
 public:
  virtual ~CausalLm() = default;
  virtual CausalLmOutput forward(const PackedBatch& batch, const ForwardOptions& options) = 0;
  // Gates in the order of CausalLmOutput::routings.
  virtual std::vector<Gate*> gates() = 0;
  // E of each MoE layer in the same order: slots below are experts with a feed-forward network.
  virtual std::vector<int64_t> num_experts() const = 0;
  virtual void visit(const TensorVisitor& visitor) = 0;
  // The configuration as config.json holds it.
  virtual nlohmann::json config() const = 0;
  // Moves all tensors; the model then computes there. Ids and positions may be given on the CPU all the same.
  virtual void to(at::Device device) {
    TORCH_CHECK(device.is_cpu(), "[model] expected the CPU, for this model computes nowhere else; got ",
                device);
  }
  virtual at::Device device() const { return at::kCPU; }
  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_positions() const = 0;
  virtual std::vector<int64_t> end_tokens() const { return {}; }  // generation ends with one of these
  virtual at::ScalarType dtype() const = 0;
  virtual KvCacheShape kv_cache_shape() const = 0;
};

}  // namespace motley
