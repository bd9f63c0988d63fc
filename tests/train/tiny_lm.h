// A language model small enough to reason about: embedding, one linear block, head, and a gate that is told
// of its load. Lets the trainer be tested apart from the model families.
#pragma once

#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "motley/models/causal_lm.h"

namespace motley {

class CountingGate final : public Gate {
 public:
  Routing route(const GateInput&) const override { return {}; }
  void update(const at::Tensor& load) override { loads.push_back(load.clone()); }
  int64_t num_slots() const override { return 3; }
  void visit(const std::string&, const TensorVisitor&) override {}

  std::vector<at::Tensor> loads;
};

class TinyLm final : public CausalLm {
 public:
  explicit TinyLm(at::ScalarType dtype = at::kFloat) {
    const auto fill = [&](at::IntArrayRef shape, double phase) {
      int64_t count = 1;
      for (const int64_t size : shape) count *= size;
      return at::arange(count, at::kDouble).mul(0.7).add(phase).sin().mul(0.3).reshape(shape).to(dtype);
    };
    embedding = fill({256, 8}, 0.1);
    block = fill({8, 8}, 0.5);
    bias = at::zeros({8}, dtype);
    head = fill({256, 8}, 0.9);
  }

  CausalLmOutput forward(const PackedBatch& batch, const ForwardOptions& options) override {
    const auto observe = [&](const char* name, const at::Tensor& value) {
      if (options.observe) options.observe(name, value);
      return value;
    };
    at::Tensor x = observe("model.embed_tokens", at::embedding(embedding, batch.ids));
    x = observe("model.layers.0.mlp", at::tanh(at::linear(x, block, bias)).mul(block_scale));
    CausalLmOutput output;
    output.logits = observe("lm_head", at::linear(x, head));
    Routing routing;
    const auto tokens = static_cast<float>(batch.num_tokens());
    routing.load = at::full({3}, tokens, at::kFloat);
    routing.dropped = at::scalar_tensor(0, at::kFloat);
    routing.losses.push_back({"balance", block.to(at::kFloat).mul(block).sum().mul(auxiliary_weight)});
    output.routings.push_back(std::move(routing));
    output.moe_layers.push_back(0);
    return output;
  }
  std::vector<Gate*> gates() override { return {&gate}; }
  std::vector<int64_t> num_experts() const override { return {2}; }
  void visit(const TensorVisitor& visitor) override {
    visitor("model.embed_tokens.weight", embedding, TensorRole::kParameter);
    visitor("model.layers.0.mlp.weight", block, TensorRole::kParameter);
    visitor("model.layers.0.mlp.bias", bias, TensorRole::kParameter);
    visitor("lm_head.weight", head, TensorRole::kParameter);
  }
  nlohmann::json config() const override { return {{"model_type", "tiny"}}; }
  int64_t vocab_size() const override { return 256; }
  int64_t max_positions() const override { return 64; }
  at::ScalarType dtype() const override { return embedding.scalar_type(); }
  KvCacheShape kv_cache_shape() const override { return {}; }

  at::Tensor embedding, block, bias, head;
  double block_scale = 1.0;  // infinity makes the block's output not finite
  double auxiliary_weight = 0.0;
  CountingGate gate;
};

}  // namespace motley
