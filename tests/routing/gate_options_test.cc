#include "motley/base/error.h"
#include "tests/routing/gate_support.h"

namespace motley {
namespace {

TEST(GateOptions, ErrorsNameTheOption) {
  struct Case {
    const char* option;
    std::function<void(GateOptions&)> spoil;
  };
  const std::vector<Case> cases = {
      {"hidden_size", [](auto& o) { o.hidden_size = 0; }},
      {"num_experts", [](auto& o) { o.num_experts = 0; }},
      {"num_experts_per_tok", [](auto& o) { o.num_experts_per_tok = 0; }},
      {"num_experts_per_tok", [](auto& o) { o.num_experts_per_tok = 7; }},
      {"gate_norm_std", [](auto& o) { o.gate_norm_std = 2; }},
      {"routed_scaling_factor", [](auto& o) { o.routed_scaling_factor = 0; }},
      {"weight_normalisation",
       [](auto& o) {
         o.zero_experts = {ZeroExpertKind::kCopy};
         o.weight_normalisation = WeightNormalisation::kTopKExceptZero;
       }},
      {"balance_loss_coef", [](auto& o) { o.balance_loss_coef = 0.01; }},
      {"balance_loss_coef", [](auto& o) { o.balance_loss = BalanceLoss::kSwitch; }},
      {"balance_loss",
       [](auto& o) {
         o.zero_experts = {};
         o.balance_loss = BalanceLoss::kAdaMoe;
         o.balance_loss_coef = 1;
       }},
      {"router_z_loss_coef", [](auto& o) { o.router_z_loss_coef = -1; }},
      {"selection_bias_update_rate", [](auto& o) { o.selection_bias_update_rate = 0.001; }},
      {"capacity_factor", [](auto& o) { o.capacity_factor = 0; }},
      {"capacity_unit", [](auto& o) { o.capacity_unit = CapacityUnit::kTokens; }},
      {"capacity_in_inference", [](auto& o) { o.capacity_in_inference = true; }},
      {"tau", [](auto& o) { o.tau = 0.5; }},
      {"tau",
       [](auto& o) {
         o.zero_experts = {};
         o.capacity_factor = 1;
         o.tau = 0.5;
       }},
      {"tau", [](auto& o) { o.tau = 0; }},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    GateOptions options = square_options(4, 2, {ZeroExpertKind::kZero, ZeroExpertKind::kCopy});
    EXPECT_NO_THROW(check(options));
    cases[i].spoil(options);
    try {
      make_gate(options);
      ADD_FAILURE() << "case " << i << " about " << cases[i].option << " was accepted";
    } catch (const UserError& error) {
      EXPECT_EQ(std::string(error.what()).rfind(std::string(cases[i].option) + ":", 0), 0u)
          << "case " << i << ": " << error.what();
    }
  }
}

TEST(GateOptions, TauIsAcceptedWhereItIsUsed) {
  GateOptions options = square_options(4, 2, {ZeroExpertKind::kZero});
  options.tau = 0.5;
  options.capacity_factor = 1;
  EXPECT_NO_THROW(check(options));
  options.capacity_factor = {};
  options.selection_bias = true;
  options.selection_bias_update_rate = 0.001;
  EXPECT_NO_THROW(check(options));
}

TEST(GateOptions, GateRefusesIntegers) { EXPECT_THROW(make_gate(square_options(4, 2), at::kInt), UserError); }

}  // namespace
}  // namespace motley
