// Options of an MoE block, and the block made from them.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/ScalarType.h>

#include <memory>
#include <optional>

#include "motley/layers/moe_block.h"
#include "motley/ops/activation.h"
#include "motley/routing/gate_options.h"

namespace motley {

enum class MoeGating {
  kDynamic,  // MoeLayer: rows of any number per expert
  kStatic,   // StaticMoeLayer: padded to the capacity, or to T without one; the baseline
};

enum class SharedExpertNames {
  kQwen2Moe,  // shared_expert.{gate,up,down}_proj.weight, shared_expert_gate.weight
  kDeepseek,  // shared_experts.{gate,up,down}_proj.weight
};

struct MoeLayerOptions {
  GateOptions gate;          // hidden_size, num_experts and zero_experts stand here
  int64_t expert_width = 0;  // F, required
  Activation activation;     // of routed and shared experts
  bool expert_bias = false;  // gate_up_proj_bias [E, G], down_proj_bias [E, D]
  MoeGating gating = MoeGating::kDynamic;
  int64_t shared_expert_width =
      0;  // 0: no shared expert; several shared experts are one of their summed width
  bool shared_expert_gate = false;  // y_shared * sigmoid(w x), as Qwen2-MoE
  SharedExpertNames shared_expert_names = SharedExpertNames::kQwen2Moe;
  at::ScalarType dtype = at::kFloat;  // of all parameters but the selection bias, which is fp32
  // Gradients of bf16 expert weights are added up in fp32: see ResidentStoreOptions. Dynamic gating only.
  bool fp32_expert_gradients = false;
};

// Normal with mean 0; biases are zeros.
struct ParameterInit {
  double std = 0.02;
  std::optional<double> output_std;  // of the down projections; std when empty
  std::optional<at::Generator> generator;
};

// Throws UserError naming the option. Without init the parameters are zeros, to be loaded.
// Names under the prefix of visit(): those of MoeLayer::visit and of SharedExpertNames.
std::unique_ptr<MoeBlock> make_moe_layer(const MoeLayerOptions& options,
                                         const std::optional<ParameterInit>& init = {});

}  // namespace motley
