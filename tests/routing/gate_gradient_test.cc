// Gradients of everything a gate gives back, against finite differences.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>

#include "tests/routing/gate_support.h"

namespace motley {
namespace {

struct Setting {
  std::string name;
  GateOptions options;
};

std::vector<Setting> settings() {
  const std::vector<ZeroExpertKind> zeros = {ZeroExpertKind::kConstant, ZeroExpertKind::kCopy,
                                             ZeroExpertKind::kZero};
  std::vector<Setting> all;
  const auto add = [&](const std::string& name, const auto& change) {
    GateOptions options = square_options(5, 2, zeros);
    options.hidden_size = 6;
    options.gating_residual = true;
    change(options);
    all.push_back({name, options});
  };
  add("plain", [](GateOptions&) {});
  add("normalised", [](GateOptions& o) { o.weight_normalisation = WeightNormalisation::kTopK; });
  add("scaled", [](GateOptions& o) { o.routed_scaling_factor = 2.5; });
  add("released MoE++", [](GateOptions& o) {
    o.scoring = Scoring::kStandardisedSoftmax;
    o.weight_normalisation = WeightNormalisation::kTopKExceptZero;
  });
  add("paper MoE++", [](GateOptions& o) {
    o.balance_loss = BalanceLoss::kHeterogeneous;
    o.balance_loss_coef = 1;
    o.tau = 0.5;
    o.capacity_factor = 1;
  });
  add("switch and z", [](GateOptions& o) {
    o.balance_loss = BalanceLoss::kSwitch;
    o.balance_loss_coef = 1;
    o.router_z_loss_coef = 0.1;
  });
  add("AdaMoE", [](GateOptions& o) {
    o.balance_loss = BalanceLoss::kAdaMoe;
    o.balance_loss_coef = 1;
    o.weight_normalisation = WeightNormalisation::kTopKExceptZero;
  });
  return all;
}

// Many tokens, of which those stay whose choice is clear enough to survive a small step.
GateInput clear_tokens(const Gate& gate, int64_t hidden_size, int64_t top_k, int64_t num_tokens) {
  GateInput input;
  input.training = true;
  input.x = at::randn({400, hidden_size});
  input.previous_logits = at::randn({400, gate.num_slots()});
  const at::Tensor logits = std::get<0>(gate.route(input).logits.sort(1, /*descending=*/true));
  const at::Tensor gaps = logits.narrow(1, 0, top_k).sub(logits.narrow(1, 1, top_k));
  const at::Tensor kept = gaps.amin(1).gt(0.3).nonzero().flatten().narrow(0, 0, num_tokens);
  input.x = input.x.index_select(0, kept);
  input.previous_logits = input.previous_logits.index_select(0, kept);
  return input;
}

TEST(GateGradient, EqualsFiniteDifferences) {
  at::manual_seed(7);
  for (const Setting& setting : settings()) {
    SCOPED_TRACE(setting.name);
    const int64_t num_tokens = 9, num_slots = setting.options.num_slots();
    auto gate = make_gate(setting.options);
    auto tensors = tensors_of(*gate);
    tensors.at("weight").normal_();
    tensors.at("residual.weight").normal_(0, 0.3);
    GateInput input = clear_tokens(*gate, 6, setting.options.num_experts_per_tok, num_tokens);
    const at::Tensor weigh = at::randn({num_tokens, setting.options.num_experts_per_tok});
    const at::Tensor tilt = at::randn({num_tokens, num_slots}).mul(0.1);
    const at::Tensor slots = gate->route(input).slots;

    const auto objective = [&] {
      const Routing routing = gate->route(input);
      EXPECT_TRUE(routing.slots.equal(slots)) << "the step changes the choice: take a smaller one";
      at::Tensor sum = routing.weights.mul(weigh).sum().add(routing.logits.mul(tilt).sum());
      for (const AuxiliaryLoss& loss : routing.losses) sum = sum.add(loss.value);
      return sum;
    };
    std::vector<at::Tensor> variables = {input.x, input.previous_logits, tensors.at("weight"),
                                         tensors.at("residual.weight")};
    for (at::Tensor& variable : variables) variable.requires_grad_(true);
    objective().backward();

    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < variables.size(); ++i) {
      const at::Tensor direction = at::randn(variables[i].sizes());
      const double step = 2e-3;
      variables[i].add_(direction, step);
      const double above = objective().item<double>();
      variables[i].add_(direction, -2 * step);
      const double below = objective().item<double>();
      variables[i].add_(direction, step);
      const double expected = (above - below) / (2 * step);
      const double found = variables[i].grad().mul(direction).sum().item<double>();
      EXPECT_NEAR(found, expected, 5e-3 * (1 + std::abs(expected))) << "variable " << i;
    }
  }
}

TEST(GateGradient, DroppedAndMaskedTokensGiveNone) {
  GateOptions options = square_options(2, 1);
  options.capacity_factor = 1;
  auto gate = unit_gate(options);
  GateInput input;
  input.training = true;
  input.x = matrix(2, {1, 0, 2, 0, 3, 0, 4, 0}).requires_grad_(true);
  input.token_mask = at::tensor({0, 1, 1, 1}).to(at::kBool);
  gate->route(input).weights.sum().backward();
  const at::Tensor norms = input.x.grad().abs().sum(1);
  EXPECT_EQ(norms[0].item<float>(), 0);  // masked
  EXPECT_GT(norms[1].item<float>(), 0);
  EXPECT_GT(norms[2].item<float>(), 0);
  EXPECT_EQ(norms[3].item<float>(), 0);  // dropped
}

}  // namespace
}  // namespace motley
