#include "motley/models/motley/motley_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "motley/ops/zero_experts.h"
#include "tests/io/temporary_folder.h"
#include "tests/models/small_config.h"

namespace motley {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string error_with(const std::string& key, const nlohmann::json& value) {
  nlohmann::json config = small_config();
  config[key] = value;
  const std::string message = user_error([&] { parse_motley_config(config, "a.json"); });
  EXPECT_THAT(message, HasSubstr("a.json"));
  return message;
}

TEST(MotleyConfig, ReadsEveryPart) {
  nlohmann::json config = small_config();
  config.update({{"mlp_layer_types", {"dense", "sparse", "sparse"}},
                 {"intermediate_size", 24},
                 {"norm_topk_prob", true},
                 {"norm_topk_except_zero", true},
                 {"gate_type", "standardised_softmax"},
                 {"gate_norm_std", 0.5},
                 {"capacity_factor", 1.1},
                 {"capacity_unit", "tokens"},
                 {"selection_bias_update_rate", 0.001},
                 {"tie_word_embeddings", true},
                 {"shared_expert_intermediate_size", 12},
                 {"shared_expert_gate", true}});
  const DecoderOptions options = parse_motley_config(config, "a.json");
  EXPECT_EQ(options.sparse, (std::vector<bool>{false, true, true}));
  EXPECT_EQ(options.dense_width, 24);
  EXPECT_TRUE(options.tie_word_embeddings);
  EXPECT_EQ(options.attention.head_dim, 8);
  const GateOptions& gate = options.moe.gate;
  EXPECT_EQ(gate.num_slots(), 7);
  EXPECT_EQ(gate.zero_experts[2], ZeroExpertKind::kConstant);
  EXPECT_EQ(gate.weight_normalisation, WeightNormalisation::kTopKExceptZero);
  EXPECT_EQ(gate.scoring, Scoring::kStandardisedSoftmax);
  EXPECT_EQ(gate.gate_norm_std, 0.5);
  EXPECT_EQ(gate.balance_loss, BalanceLoss::kHeterogeneous);  // what its coefficient means with zero experts
  EXPECT_EQ(gate.balance_loss_coef, 0.01);
  EXPECT_EQ(gate.tau, 0.75);
  EXPECT_EQ(gate.capacity_factor, 1.1);
  EXPECT_EQ(gate.capacity_unit, CapacityUnit::kTokens);
  EXPECT_TRUE(gate.selection_bias);
  EXPECT_TRUE(gate.gating_residual);
  EXPECT_EQ(options.moe.shared_expert_width, 12);
  EXPECT_TRUE(options.moe.shared_expert_gate);
}

TEST(MotleyConfig, NamesUnknownKeysAndTheNearestKnownOne) {
  EXPECT_THAT(error_with("num_expert", 4), AllOf(HasSubstr("num_expert"), HasSubstr("num_experts")));
  EXPECT_THAT(error_with("zero_expert_taus", 1), HasSubstr("zero_expert_tau"));
}

TEST(MotleyConfig, NamesWhatIsMissing) {
  for (const char* key :
       {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_experts",
        "num_experts_per_tok", "moe_intermediate_size", "max_position_embeddings"}) {
    nlohmann::json config = small_config();
    config.erase(key);
    EXPECT_THAT(user_error([&] { parse_motley_config(config, "a.json"); }), HasSubstr(key));
  }
}

TEST(MotleyConfig, RefusesContradictions) {
  EXPECT_THAT(error_with("num_experts_per_tok", 8),
              AllOf(HasSubstr("num_experts_per_tok"), HasSubstr("7 slots")));
  EXPECT_THAT(error_with("num_key_value_heads", 3), HasSubstr("num_key_value_heads"));
  EXPECT_THAT(error_with("head_dim", 7), HasSubstr("head_dim"));
  EXPECT_THAT(error_with("mlp_layer_types", {"sparse"}), HasSubstr("mlp_layer_types"));
  EXPECT_THAT(error_with("mlp_layer_types", {"sparse", "dens", "sparse"}), HasSubstr("dens"));
  EXPECT_THAT(error_with("mlp_layer_types", {"sparse", "dense", "sparse"}), HasSubstr("intermediate_size"));
  EXPECT_THAT(error_with("layer_types", {"full_attention", "linear_attention", "full_attention"}),
              HasSubstr("linear_attention"));
  EXPECT_THAT(error_with("hidden_act", "tanh"), HasSubstr("hidden_act"));
  EXPECT_THAT(error_with("zero_expert_types", {"zero", "copi"}), HasSubstr("copi"));
  EXPECT_THAT(error_with("gate_type", "switch"), HasSubstr("num_experts_per_tok"));
  EXPECT_THAT(error_with("norm_topk_except_zero", true), HasSubstr("norm_topk_prob"));
  EXPECT_THAT(error_with("balance_loss", "none"), HasSubstr("router_aux_loss_coef"));
  EXPECT_THAT(error_with("router_aux_loss_coef", -1), HasSubstr("router_aux_loss_coef"));
  EXPECT_THAT(error_with("capacity_unit", "tokens"), HasSubstr("capacity_factor"));
  EXPECT_THAT(error_with("capacity_in_inference", true), HasSubstr("capacity_factor"));
  EXPECT_THAT(error_with("moe_gating", "static"), HasSubstr("capacity_factor"));
  EXPECT_THAT(error_with("zero_expert_types", nlohmann::json::array()),
              HasSubstr("a.json: zero_expert_tau: expected 1, for it has no effect"));
  EXPECT_EQ(error_with("gate_norm_std", 2.0),
            "a.json: gate_norm_std: expected no such key with gate_type softmax, found 2; it belongs to "
            "gate_type standardised_softmax");
  EXPECT_EQ(
      error_with("intermediate_size", 32),
      "a.json: intermediate_size: expected no such key where every layer is sparse, found 32; leave it out");
  EXPECT_THAT(error_with("hidden_size", "wide"), HasSubstr("hidden_size"));
}

// Rules of the gate's own are told in the configuration's words.
TEST(MotleyConfig, NamesKeysNotFields) {
  nlohmann::json config = small_config();
  config.erase("zero_expert_tau");
  config.update({{"zero_expert_types", {"copy"}}, {"norm_topk_prob", true}, {"norm_topk_except_zero", true}});
  EXPECT_THAT(user_error([&] { parse_motley_config(config, "a.json"); }),
              HasSubstr("a.json: norm_topk_except_zero: expected at least one zero expert"));
}

TEST(MotleyConfig, DenseModelsNeedNoExperts) {
  const nlohmann::json config = {{"model_type", "motley"},
                                 {"vocab_size", 16},
                                 {"hidden_size", 16},
                                 {"intermediate_size", 32},
                                 {"num_hidden_layers", 1},
                                 {"num_attention_heads", 2},
                                 {"mlp_layer_types", {"dense"}},
                                 {"max_position_embeddings", 8}};
  EXPECT_EQ(parse_motley_config(config, "a.json").dense_width, 32);
  for (const char* key : {"num_experts", "capacity_factor", "gate_norm_std", "gated_experts"}) {
    nlohmann::json more = config;
    more[key] = 4;
    EXPECT_EQ(
        user_error([&] { parse_motley_config(more, "a.json"); }),
        concat("a.json: ", key, ": expected no such key where every layer is dense, found 4; leave it out"));
  }
}

}  // namespace
}  // namespace motley
