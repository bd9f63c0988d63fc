#include "motley/models/moe_plus_plus/moe_plus_plus_config.h"

#include <nlohmann/json.hpp>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/models/decoder/decoder_config.h"
#include "motley/ops/zero_experts.h"

namespace motley {
namespace {

const std::vector<ZeroExpertKind> kZeroExperts = {ZeroExpertKind::kConstant, ZeroExpertKind::kConstant,
                                                  ZeroExpertKind::kCopy, ZeroExpertKind::kZero};

// A key whose other values change the result in a way that is not built.
template <class T>
void expect(ConfigValues& values, const char* key, const T& supported) {
  if (!values.has(key)) return;
  if (values.object().at(key) != nlohmann::json(supported)) {
    values.fail(key, concat(nlohmann::json(supported).dump(), ", for nothing else is supported"),
                values.object().at(key).dump());
  }
}

int64_t read_num_slots(ConfigValues& values, int64_t num_layers) {
  const auto counts = values.required<std::vector<int64_t>>("num_experts", between(1, kMaxExperts));
  // One number for all layers, or one a layer.
  for (const int64_t count : counts) {
    if (count != counts.front()) values.fail("num_experts", "the same number in every layer", concat(count));
  }
  if (counts.empty() || (counts.size() != 1 && static_cast<int64_t>(counts.size()) != num_layers)) {
    values.fail("num_experts", concat("a list of one number, or of one a layer (", num_layers, ")"),
                concat("a list of ", counts.size()));
  }
  const auto zero_experts = static_cast<int64_t>(kZeroExperts.size());
  if (counts.front() <= zero_experts) {
    values.fail("num_experts",
                concat("more than the ", zero_experts, " zero-computation experts that it counts too"),
                concat(counts.front()));
  }
  return counts.front();
}

GateOptions read_gate(ConfigValues& values, int64_t num_layers) {
  GateOptions gate;
  gate.zero_experts = kZeroExperts;
  gate.num_experts = read_num_slots(values, num_layers) - gate.num_zero_experts();
  gate.num_experts_per_tok = 2;
  gate.gating_residual = true;
  gate.weight_normalisation = WeightNormalisation::kTopKExceptZero;
  gate.scoring = Scoring::kStandardisedSoftmax;
  gate.gate_norm_std = values.optional<double>("moe_gate_norm_std", 1.0);
  if (gate.gate_norm_std <= 0)
    values.fail("moe_gate_norm_std", "a number above 0", concat(gate.gate_norm_std));
  return gate;
}

}  // namespace

DecoderOptions parse_moe_plus_plus_config(const nlohmann::json& config, const std::string& source) {
  ConfigValues values(config, source);
  expect(values, "hidden_act", "silu");
  expect(values, "moe_expert_interval", 1);
  expect(values, "moe_2layer_gate", false);
  expect(values, "moe_use_mixtral_gating", false);
  expect(values, "rotary_percent", 1.0);
  expect(values, "attention_bias", false);
  expect(values, "mlp_bias", false);
  // Absent counts as false, which is another gate here and doubles the input of the experts there.
  for (const char* key : {"moe_use_logits_norm", "moe_feature_no_mul_topk"}) {
    if (!values.optional<bool>(key, false))
      values.fail(key, "true, for nothing else is supported", "false or no key");
  }
  if (values.has("rope_scaling"))
    values.fail("rope_scaling", "null", values.object().at("rope_scaling").dump());

  DecoderOptions options = read_decoder(values);
  const int64_t num_layers = values.required<int64_t>("num_hidden_layers", between(1, kMaxLayers));
  options.sparse.assign(num_layers, true);
  AttentionOptions& attention = options.attention;
  if (attention.hidden_size % (2 * attention.num_heads) != 0) {
    values.fail("num_attention_heads",
                concat("heads of an even width in hidden_size ", attention.hidden_size),
                concat(attention.num_heads));
  }
  attention.head_dim = attention.hidden_size / attention.num_heads;
  options.first_gate_residual = true;
  options.moe.gate = read_gate(values, num_layers);
  options.moe.gate.hidden_size = attention.hidden_size;
  options.moe.expert_width = values.required<int64_t>("intermediate_size", between(1, kMaxWidth));
  options.moe.activation = {.kind = ActivationKind::kSwiGlu};
  return options;
}

}  // namespace motley
