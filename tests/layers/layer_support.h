// Small layers, and a plain reference of what one computes, token by token in fp64.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "motley/layers/moe_options.h"
#include "motley/ops/zero_experts.h"

namespace motley {

using TensorMap = std::map<std::string, at::Tensor>;

inline TensorMap tensors_of(MoeBlock& block) {
  TensorMap tensors;
  block.visit("mlp.", [&](const std::string& name, at::Tensor& tensor, TensorRole) {
    tensors.emplace(name, tensor);
  });
  return tensors;
}

inline void copy_tensors(MoeBlock& from, MoeBlock& to) {
  const TensorMap source = tensors_of(from);
  to.visit("mlp.",
           [&](const std::string& name, at::Tensor& tensor, TensorRole) { tensor.copy_(source.at(name)); });
}

inline void require_gradients(MoeBlock& block) {
  for (auto& [name, tensor] : tensors_of(block)) tensor.requires_grad_(true);
}

inline ParameterInit seeded(double std, uint64_t seed = 1) {
  ParameterInit init;
  init.std = std;
  init.generator = at::detail::createCPUGenerator(seed);
  return init;
}

// 4 experts of width 7 over 10 columns, 2 choices, SwiGLU.
inline MoeLayerOptions small_layer(std::vector<ZeroExpertKind> zero_experts = {}) {
  MoeLayerOptions options;
  options.gate.hidden_size = 10;
  options.gate.num_experts = 4;
  options.gate.num_experts_per_tok = 2;
  options.gate.zero_experts = std::move(zero_experts);
  options.expert_width = 7;
  return options;
}

// y[t] by the definitions: SwiGLU experts with optional biases, and Eq. 3-5 of MoE++.
inline at::Tensor reference_forward(const at::Tensor& x, const Routing& routing,
                                    const MoeLayerOptions& options, const TensorMap& tensors) {
  const int64_t num_experts = options.gate.num_experts, width = options.expert_width;
  const auto weight = [&](const std::string& name, int64_t index) {
    return tensors.at(name)[index].to(at::kDouble);
  };
  at::Tensor y = at::zeros(x.sizes(), at::kDouble);
  for (int64_t t = 0; t < x.size(0); ++t) {
    const at::Tensor xt = x[t].to(at::kDouble);
    for (int64_t k = 0; k < routing.slots.size(1); ++k) {
      const int64_t slot = routing.slots[t][k].item<int64_t>();
      const double w = routing.weights[t][k].item<double>();
      if (slot < 0) continue;
      if (slot < num_experts) {
        at::Tensor hidden = weight("mlp.experts.gate_up_proj", slot).mv(xt);
        if (options.expert_bias) hidden = hidden.add(weight("mlp.experts.gate_up_proj_bias", slot));
        const at::Tensor a = at::silu(hidden.narrow(0, 0, width)).mul(hidden.narrow(0, width, width));
        at::Tensor out = weight("mlp.experts.down_proj", slot).mv(a);
        if (options.expert_bias) out = out.add(weight("mlp.experts.down_proj_bias", slot));
        y[t].add_(out, w);
        continue;
      }
      const auto& kinds = options.gate.zero_experts;
      if (kinds[slot - num_experts] == ZeroExpertKind::kCopy) y[t].add_(xt, w);
      if (kinds[slot - num_experts] != ZeroExpertKind::kConstant) continue;
      const int64_t index =
          std::count(kinds.begin(), kinds.begin() + (slot - num_experts), ZeroExpertKind::kConstant);
      const at::Tensor a = at::softmax(weight("mlp.zero_experts.constant_gate", index).mv(xt), 0);
      y[t].add_(xt.mul(a[0]).add(weight("mlp.zero_experts.constant", index).mul(a[1])), w);
    }
  }
  return y;
}

inline void expect_close(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  const double off = found.to(at::kDouble).sub(expected.to(at::kDouble)).abs().max().item<double>();
  const double scale = expected.abs().max().item<double>();
  EXPECT_GT(scale, 0);
  EXPECT_LE(off, tolerance * scale);
}

}  // namespace motley
