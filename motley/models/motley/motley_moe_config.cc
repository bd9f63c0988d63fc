#include "motley/models/motley/motley_moe_config.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "motley/base/error.h"
#include "motley/models/decoder/decoder_config.h"
#include "motley/ops/zero_experts.h"

namespace motley {
namespace {

std::vector<ZeroExpertKind> read_zero_experts(ConfigValues& values) {
  std::vector<ZeroExpertKind> kinds;
  for (const std::string& name : values.optional<std::vector<std::string>>("zero_expert_types", {})) {
    if (name == "zero") {
      kinds.push_back(ZeroExpertKind::kZero);
    } else if (name == "copy") {
      kinds.push_back(ZeroExpertKind::kCopy);
    } else if (name == "constant") {
      kinds.push_back(ZeroExpertKind::kConstant);
    } else {
      values.fail("zero_expert_types", "names of zero, copy and constant", name);
    }
  }
  if (static_cast<int64_t>(kinds.size()) > kMaxExperts) {
    values.fail("zero_expert_types", concat("at most ", kMaxExperts, " names"), concat(kinds.size()));
  }
  return kinds;
}

// The gate's own rules (motley/routing/gate_options.cc) name its fields, a few of which have other keys.
std::string in_keys(std::string_view message) {
  return in_words(message, {{"tau", "zero_expert_tau"},
                            {"scoring", "gate_type"},
                            {"weight_normalisation", "norm_topk_except_zero"},
                            {"balance_loss_coef", "router_aux_loss_coef"}});
}

void read_scoring(ConfigValues& values, GateOptions& gate) {
  const std::string type =
      values.choice("gate_type", {"softmax", "switch", "standardised_softmax"}, "softmax");
  if (type == "switch" && gate.num_experts_per_tok != 1) {
    values.fail("num_experts_per_tok", "1 with gate_type switch", concat(gate.num_experts_per_tok));
  }
  gate.gate_norm_std = values.optional<double>("gate_norm_std", 1.0);
  if (type == "standardised_softmax") {
    gate.scoring = Scoring::kStandardisedSoftmax;
    if (gate.gate_norm_std <= 0) values.fail("gate_norm_std", "a number above 0", concat(gate.gate_norm_std));
  } else if (values.has("gate_norm_std")) {
    values.fail("gate_norm_std", concat("no such key with gate_type ", type), concat(gate.gate_norm_std),
                "it belongs to gate_type standardised_softmax");
  }
  const bool normalise = values.optional<bool>("norm_topk_prob", false);
  const bool except_zero = values.optional<bool>("norm_topk_except_zero", false);
  if (type == "switch" && normalise) {
    values.fail("norm_topk_prob", "false with gate_type switch, whose weights would all be 1", "true");
  }
  if (except_zero && !normalise)
    values.fail("norm_topk_except_zero", "norm_topk_prob to be true too", "false");
  if (normalise) {
    gate.weight_normalisation =
        except_zero ? WeightNormalisation::kTopKExceptZero : WeightNormalisation::kTopK;
  }
  gate.routed_scaling_factor = values.optional<double>("routed_scaling_factor", 1.0);
  gate.gating_residual = values.optional<bool>("gating_residual", false);
}

void read_balancing(ConfigValues& values, GateOptions& gate) {
  gate.balance_loss_coef = values.optional<double>("router_aux_loss_coef", 0.0, at_least(0));
  gate.router_z_loss_coef = values.optional<double>("router_z_loss_coef", 0.0, at_least(0));
  // The loss of the paper that the architecture comes from, unless the configuration names another.
  const std::string usual = gate.balance_loss_coef == 0 ? "none"
                            : gate.zero_experts.empty() ? "switch"
                                                        : "heterogeneous";
  const std::string loss =
      values.choice("balance_loss", {"none", "switch", "heterogeneous", "adamoe"}, usual);
  if (loss == "none" && gate.balance_loss_coef != 0) {
    values.fail("router_aux_loss_coef", "0 with balance_loss none", concat(gate.balance_loss_coef));
  }
  if (loss != "none" && gate.balance_loss_coef == 0) {
    values.fail("router_aux_loss_coef", concat("a number above 0 with balance_loss ", loss), "0");
  }
  if (loss == "switch") gate.balance_loss = BalanceLoss::kSwitch;
  if (loss == "heterogeneous") gate.balance_loss = BalanceLoss::kHeterogeneous;
  if (loss == "adamoe") gate.balance_loss = BalanceLoss::kAdaMoe;
  gate.selection_bias_update_rate = values.optional<double>("selection_bias_update_rate", 0.0, at_least(0));
  gate.selection_bias = values.optional<bool>("selection_bias", gate.selection_bias_update_rate > 0);
  gate.tau = values.optional<double>("zero_expert_tau", 1.0);
}

void read_capacity(ConfigValues& values, GateOptions& gate) {
  if (values.has("capacity_factor")) gate.capacity_factor = values.required<double>("capacity_factor");
  values.know("capacity_factor");
  gate.capacity_unit = values.choice("capacity_unit", {"assignments", "tokens"}, "assignments") == "tokens"
                           ? CapacityUnit::kTokens
                           : CapacityUnit::kAssignments;
  gate.capacity_in_inference = values.optional<bool>("capacity_in_inference", false);
  if (!gate.capacity_factor && values.has("capacity_unit")) {
    values.fail("capacity_unit", "a capacity_factor, without which it has no effect", "none");
  }
}

}  // namespace

std::set<std::string, std::less<>> moe_keys() {
  const nlohmann::json least = {{"moe_intermediate_size", 1}, {"num_experts", 1}, {"num_experts_per_tok", 1}};
  ConfigValues values(least, "");
  read_moe_options(values);
  return values.known();
}

MoeLayerOptions read_moe_options(ConfigValues& values) {
  MoeLayerOptions options;
  GateOptions& gate = options.gate;
  options.expert_width = values.required<int64_t>("moe_intermediate_size", between(1, kMaxWidth));
  options.expert_bias = values.optional<bool>("expert_bias", false);
  gate.num_experts = values.required<int64_t>("num_experts", between(1, kMaxExperts));
  gate.zero_experts = read_zero_experts(values);
  gate.num_experts_per_tok = values.required<int64_t>("num_experts_per_tok", at_least(1));
  if (gate.num_experts_per_tok > gate.num_slots()) {
    values.fail("num_experts_per_tok",
                concat("at most the ", gate.num_slots(), " slots (num_experts and zero_expert_types)"),
                concat(gate.num_experts_per_tok));
  }
  read_scoring(values, gate);
  read_balancing(values, gate);
  read_capacity(values, gate);
  options.gating = values.choice("moe_gating", {"dynamic", "static"}, "dynamic") == "static"
                       ? MoeGating::kStatic
                       : MoeGating::kDynamic;
  if (options.gating == MoeGating::kStatic && !gate.capacity_factor) {
    values.fail("capacity_factor", "a number with moe_gating static", "none");
  }
  options.shared_expert_width =
      values.optional<int64_t>("shared_expert_intermediate_size", 0, between(0, kMaxWidth));
  options.shared_expert_gate = values.optional<bool>("shared_expert_gate", false);
  // The rules between options are the gate's own.
  GateOptions whole = gate;
  whole.hidden_size = 1;
  try {
    check(whole);
  } catch (const UserError& error) {
    throw UserError(key_place(values.source(), in_keys(error.what())));
  }
  return options;
}

}  // namespace motley
