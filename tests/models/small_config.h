// A small model of our own with everything of MoE++ in it.
#pragma once

#include <nlohmann/json.hpp>

namespace motley {

inline nlohmann::json small_config() {
  return {{"model_type", "motley"},
          {"vocab_size", 50},
          {"hidden_size", 32},
          {"moe_intermediate_size", 24},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 64},
          {"num_experts", 4},
          {"num_experts_per_tok", 2},
          {"zero_expert_types", {"zero", "copy", "constant"}},
          {"zero_expert_tau", 0.75},
          {"gating_residual", true},
          {"router_aux_loss_coef", 0.01}};
}

}  // namespace motley
