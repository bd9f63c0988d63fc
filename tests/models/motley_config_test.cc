#include "motley/models/motley/motley_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "motley/base/concat.h"
#include "motley/models/decoder/decoder_memory.h"
#include "motley/models/registry.h"
#include "motley/ops/zero_experts.h"
#include "tests/io/temporary_folder.h"
#include "tests/models/small_config.h"

namespace motley {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

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

// Products of sizes overflow, or ask for all the memory there is, long after the key is forgotten.
TEST(MotleyConfig, SizesHaveUpperBounds) {
  nlohmann::json dense = small_config();
  dense.update({{"mlp_layer_types", {"dense", "sparse", "sparse"}}, {"intermediate_size", 80}});
  const std::pair<const char*, int64_t> bounds[] = {{"vocab_size", 16777216},
                                                    {"max_position_embeddings", 16777216},
                                                    {"hidden_size", 1048576},
                                                    {"moe_intermediate_size", 1048576},
                                                    {"intermediate_size", 1048576},
                                                    {"shared_expert_intermediate_size", 1048576},
                                                    {"num_attention_heads", 65536},
                                                    {"num_key_value_heads", 65536},
                                                    {"head_dim", 65536},
                                                    {"num_experts", 65536},
                                                    {"num_hidden_layers", 10000}};
  for (const auto& [key, most] : bounds) {
    for (const int64_t size : {most + 1, std::numeric_limits<int64_t>::max()}) {
      nlohmann::json config = dense;
      config[key] = size;
      EXPECT_THAT(user_error([&] { parse_motley_config(config, "a.json"); }),
                  AllOf(StartsWith(concat("a.json: ", key, ": expected a whole number from ")),
                        EndsWith(concat(" to ", most, ", found ", size))));
    }
  }
  EXPECT_THAT(error_with("zero_expert_types", std::vector<std::string>(65537, "copy")),
              HasSubstr("zero_expert_types: expected at most 65536 names, found 65537"));
}

TEST(MotleyConfig, ModelsBeyondTheMemoryAreRefusedBeforeTheyAreMade) {
  nlohmann::json config = small_config();
  config["hidden_size"] = 1 << 20;
  config["num_experts"] = 1 << 16;
  EXPECT_THAT(user_error([&] { make_model(config, 1, at::kFloat, {.source = "c.json: model."}); }),
              AllOf(StartsWith("c.json: model: expected weights within the "), HasSubstr("num_experts")));
  // What is needed besides the weights counts too.
  EXPECT_THAT(user_error([&] { make_model(small_config(), 1, at::kFloat, {.bytes_per_parameter = 1e12}); }),
              StartsWith("config.json: expected weights, gradients and moments within the "));
}

TEST(MotleyConfig, MemoryIsThatOfTheTensors) {
  nlohmann::json config = small_config();
  config.update({{"mlp_layer_types", {"dense", "sparse", "sparse"}},
                 {"intermediate_size", 80},
                 {"shared_expert_intermediate_size", 12}});
  for (const bool tied : {false, true}) {
    config["tie_word_embeddings"] = tied;
    double bytes = 64 * 8 * 4;  // rotary table
    make_model(config, 1, at::kFloat)->visit([&](const std::string&, at::Tensor& tensor, TensorRole) {
      bytes += tensor.nbytes();
    });
    const double predicted = decoder_bytes(parse_motley_config(config, "a.json"), 4);
    EXPECT_LE(predicted, bytes);
    EXPECT_GT(predicted, 0.97 * bytes);
  }
}

TEST(MotleyConfig, KnowsDtypesAndEndTokens) {
  EXPECT_THAT(error_with("torch_dtype", "int7"),
              HasSubstr("torch_dtype: expected float32, bfloat16 or float16"));
  EXPECT_THAT(error_with("dtype", "fp32"), HasSubstr("a.json: dtype: expected float32"));
  EXPECT_THAT(error_with("eos_token_id", 50),
              HasSubstr("eos_token_id: expected a whole number from 0 to 49"));
  EXPECT_THAT(error_with("eos_token_id", {3, -1}), HasSubstr("eos_token_id"));
  EXPECT_THAT(error_with("eos_token_id", "</s>"), HasSubstr("eos_token_id"));
  nlohmann::json config = small_config();
  config["eos_token_id"] = 3;
  EXPECT_EQ(parse_motley_config(config, "a.json").end_tokens, std::vector<int64_t>{3});
  config["eos_token_id"] = {3, 4};
  config["torch_dtype"] = "bfloat16";
  EXPECT_EQ(make_model(config, 1, at::kBFloat16)->end_tokens(), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(
      user_error([&] { make_model(config, 1, at::kFloat, {.source = "c.json: model."}); }),
      "c.json: model.torch_dtype: expected no such key, or float32, the dtype of the run, found bfloat16");
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
