#include "motley/routing/gate_options.h"

#include <algorithm>
#include <cmath>

#include "motley/base/error.h"
#include "motley/ops/zero_experts.h"

namespace motley {
namespace {

template <class T>
void require(bool ok, const char* field, const char* expected, const T& found, const char* fix = "") {
  if (!ok) throw UserError(Mistake{field, expected, concat(found), fix});
}

void check_sizes(const GateOptions& o) {
  require(o.hidden_size > 0, "hidden_size", "at least 1", o.hidden_size);
  require(o.num_experts > 0, "num_experts", "at least 1", o.num_experts);
  require(o.num_experts_per_tok > 0, "num_experts_per_tok", "at least 1", o.num_experts_per_tok);
  if (o.num_experts_per_tok > o.num_slots()) {
    throw UserError(Mistake{"num_experts_per_tok",
                            concat("at most the ", o.num_slots(), " slots (", o.num_experts, " experts and ",
                                   o.num_zero_experts(), " zero-computation experts)"),
                            concat(o.num_experts_per_tok), ""});
  }
}

void check_weights(const GateOptions& o) {
  if (o.scoring == Scoring::kStandardisedSoftmax) {
    require(o.num_slots() > 1, "scoring", "at least 2 slots to standardise over", o.num_slots());
    require(o.gate_norm_std > 0, "gate_norm_std", "more than 0", o.gate_norm_std);
  } else {
    require(o.gate_norm_std == 1.0, "gate_norm_std", "1, for it has no effect without standardised scoring",
            o.gate_norm_std);
  }
  require(std::isfinite(o.routed_scaling_factor) && o.routed_scaling_factor > 0, "routed_scaling_factor",
          "a number above 0", o.routed_scaling_factor);
  if (o.weight_normalisation == WeightNormalisation::kTopKExceptZero) {
    const auto zeros = std::count(o.zero_experts.begin(), o.zero_experts.end(), ZeroExpertKind::kZero);
    require(zeros > 0, "weight_normalisation", "at least one zero expert to leave out of the sum", zeros);
  }
}

void check_balance(const GateOptions& o) {
  if (o.balance_loss == BalanceLoss::kNone) {
    require(o.balance_loss_coef == 0, "balance_loss_coef", "0, for it has no effect without a balance loss",
            o.balance_loss_coef);
  } else {
    require(o.balance_loss_coef > 0, "balance_loss_coef", "more than 0 with a balance loss",
            o.balance_loss_coef);
  }
  if (o.balance_loss == BalanceLoss::kAdaMoe) {
    const auto zeros = std::count(o.zero_experts.begin(), o.zero_experts.end(), ZeroExpertKind::kZero);
    require(zeros > 0, "balance_loss", "at least one zero expert for AdaMoE's loss", zeros);
  }
  require(o.router_z_loss_coef >= 0, "router_z_loss_coef", "at least 0", o.router_z_loss_coef);
  require(o.selection_bias_update_rate >= 0, "selection_bias_update_rate", "at least 0",
          o.selection_bias_update_rate);
  require(o.selection_bias || o.selection_bias_update_rate == 0, "selection_bias_update_rate",
          "0, for it has no effect without selection_bias", o.selection_bias_update_rate);
}

void check_capacity(const GateOptions& o) {
  if (o.capacity_factor) {
    require(std::isfinite(*o.capacity_factor) && *o.capacity_factor > 0, "capacity_factor",
            "a number above 0", *o.capacity_factor);
    return;
  }
  require(o.capacity_unit == CapacityUnit::kAssignments, "capacity_unit",
          "no value without capacity_factor, for it has no effect", "tokens",
          "set capacity_factor or drop it");
  require(!o.capacity_in_inference, "capacity_in_inference",
          "false without capacity_factor, for it has no effect", "true");
}

void check_tau(const GateOptions& o) {
  require(o.tau > 0 && o.tau <= 1e6, "tau", "a number above 0 and at most 1e6", o.tau);
  if (o.tau == 1.0) return;
  require(o.num_zero_experts() > 0, "tau", "1, for it has no effect without zero-computation experts", o.tau);
  const bool used =
      o.balance_loss == BalanceLoss::kHeterogeneous || o.capacity_factor || o.selection_bias_update_rate > 0;
  require(used, "tau",
          "1, for it has no effect without the heterogeneous balance loss, capacity_factor or "
          "selection_bias_update_rate",
          o.tau);
}

}  // namespace

void check(const GateOptions& options) {
  check_sizes(options);
  check_weights(options);
  check_balance(options);
  check_capacity(options);
  check_tau(options);
}

}  // namespace motley
