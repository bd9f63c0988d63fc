#include "motley/routing/softmax_gate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/std.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "motley/base/error.h"
#include "motley/ops/gate_select.h"
#include "motley/ops/routing_plan.h"
#include "motley/ops/zero_experts.h"
#include "motley/routing/balance_losses.h"
#include "motley/routing/capacity.h"
#include "motley/routing/gates.h"
#include "motley/routing/select_top_k.h"

namespace motley {
namespace {

// Up to here a GPU's logits are a row of dot products for each token; above, a product of matrices.
constexpr int64_t kFewTokens = 64;

static_assert(static_cast<int>(WeightNormalisation::kTopKExceptZero) ==
              static_cast<int>(ops::GateNormalisation::kTopKExceptZero));

void check_input(const GateOptions& options, const GateInput& input) {
  const at::Tensor& x = input.x;
  TORCH_CHECK(x.defined() && x.dim() == 2 && x.size(1) == options.hidden_size && x.is_floating_point(),
              "[gate] expected x [T, ", options.hidden_size, "] of a floating dtype, got ",
              x.defined() ? c10::str(x.sizes(), " in ", x.scalar_type()) : "an undefined tensor");
  const at::Tensor& previous = input.previous_logits;
  TORCH_CHECK(!options.gating_residual || !previous.defined() ||
                  (previous.dim() == 2 && previous.size(0) == x.size(0) &&
                   previous.size(1) == options.num_slots() && previous.scalar_type() == at::kFloat),
              "[gate] expected previous_logits [", x.size(0), ", ", options.num_slots(), "] in fp32, got ",
              previous.sizes(), " in ", previous.scalar_type());
  const at::Tensor& mask = input.token_mask;
  TORCH_CHECK(
      !mask.defined() || (mask.dim() == 1 && mask.size(0) == x.size(0) && mask.scalar_type() == at::kBool),
      "[gate] expected token_mask [", x.size(0), "] of bool, got ", mask.sizes(), " in ", mask.scalar_type());
}

int64_t num_counted_tokens(const GateInput& input) {
  // Reads one number back from the device; only where a mask and a capacity meet.
  return input.token_mask.defined() ? input.token_mask.sum().item<int64_t>() : input.x.size(0);
}

}  // namespace

SoftmaxGate::SoftmaxGate(const GateOptions& options, at::ScalarType dtype) : options_(options) {
  check(options_);
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf) {
    throw UserError(Mistake{"dtype of the gate", "float32, bfloat16 or float16", c10::toString(dtype), ""});
  }
  const int64_t num_slots = options_.num_slots();
  weight_ = at::zeros({num_slots, options_.hidden_size}, dtype);
  if (options_.gating_residual) residual_weight_ = at::zeros({num_slots, num_slots}, dtype);
  if (options_.selection_bias) selection_bias_ = at::zeros({num_slots}, at::kFloat);
}

at::Tensor SoftmaxGate::raw_logits(const GateInput& input) const {
  const bool residual = residual_weight_.defined() && input.previous_logits.defined();
  if (input.x.is_cuda() && input.x.size(0) <= kFewTokens && !at::GradMode::is_enabled()) {
    return residual ? ops::gate_logits(input.x, weight_, input.previous_logits, residual_weight_)
                    : ops::gate_logits(input.x, weight_, std::nullopt, std::nullopt);
  }
  at::Tensor logits = at::linear(input.x.to(at::kFloat), weight_.to(at::kFloat));
  if (!residual) return logits;
  // G(x^j) = W^j x^j + W_g^j G(x^{j-1})  (MoE++ Eq. 6)
  return logits.add(at::linear(input.previous_logits, residual_weight_.to(at::kFloat)));
}

at::Tensor SoftmaxGate::scores(const at::Tensor& logits) const {
  if (options_.scoring == Scoring::kSoftmax) return at::softmax(logits, 1);
  const at::Tensor deviation =
      at::std(logits, at::IntArrayRef{1}, /*correction=*/at::Scalar(1), /*keepdim=*/true);
  // Equal logits have no deviation and get equal scores.
  const at::Tensor divisor = at::where(deviation.gt(0), deviation, at::ones_like(deviation));
  return at::softmax(logits.div(divisor).mul(options_.gate_norm_std), 1);
}

at::Tensor SoftmaxGate::weights(const at::Tensor& scores, const at::Tensor& chosen) const {
  at::Tensor weights = scores.gather(1, chosen);
  if (options_.weight_normalisation == WeightNormalisation::kTopKExceptZero) {
    for (int64_t z = 0; z < options_.num_zero_experts(); ++z) {
      if (options_.zero_experts[z] != ZeroExpertKind::kZero) continue;
      weights = weights.masked_fill(chosen.eq(options_.num_experts + z), 0);
    }
  }
  if (options_.weight_normalisation != WeightNormalisation::kNone) {
    const at::Tensor sum = weights.sum(1, /*keepdim=*/true);
    weights = weights.div(at::where(sum.gt(0), sum, at::ones_like(sum)));
  }
  return options_.routed_scaling_factor == 1.0 ? weights : weights.mul(options_.routed_scaling_factor);
}

void SoftmaxGate::add_losses(const GateInput& input, const at::Tensor& scores, const at::Tensor& assigned,
                             Routing& routing) const {
  if (options_.balance_loss != BalanceLoss::kNone) {
    const at::Tensor loss = balance_loss(options_, assigned, scores, input.token_mask);
    routing.losses.push_back({"balance", loss.mul(options_.balance_loss_coef)});
  }
  if (options_.router_z_loss_coef > 0) {
    const at::Tensor loss = router_z_loss(routing.logits, input.token_mask);
    routing.losses.push_back({"z", loss.mul(options_.router_z_loss_coef)});
  }
}

Routing SoftmaxGate::route(const GateInput& input) const {
  check_input(options_, input);
  Routing routing;
  routing.logits = raw_logits(input);
  if (ops::gate_select_takes(routing.logits, options_.num_experts_per_tok)) {
    return route_fused(input, std::move(routing));
  }
  const at::Tensor scores = this->scores(routing.logits);
  const at::Tensor ranking =
      selection_bias_.defined() ? scores.detach().add(selection_bias_) : scores.detach();
  const at::Tensor chosen = select_top_k(ranking, options_.num_experts_per_tok);

  routing.slots = chosen.to(at::kInt);
  routing.weights = weights(scores, chosen);
  at::Tensor keep;
  if (input.token_mask.defined()) {
    keep = input.token_mask.unsqueeze(1);
    routing.slots = routing.slots.masked_fill(keep.logical_not(), -1);
  }

  finish(input, scores, std::move(keep), routing);
  return routing;
}

// The same in one kernel, which also counts the load.
Routing SoftmaxGate::route_fused(const GateInput& input, Routing routing) const {
  ops::GateRule rule{.top_k = options_.num_experts_per_tok,
                     .standardise = options_.scoring == Scoring::kStandardisedSoftmax,
                     .norm_std = options_.gate_norm_std,
                     .normalisation = static_cast<ops::GateNormalisation>(options_.weight_normalisation),
                     .zero_slots = {},
                     .scale = options_.routed_scaling_factor};
  for (int64_t z = 0; z < options_.num_zero_experts(); ++z) {
    if (options_.zero_experts[z] == ZeroExpertKind::kZero) {
      rule.zero_slots.push_back(options_.num_experts + z);
    }
  }
  const auto optional = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::optional(tensor) : std::nullopt;
  };
  auto selected =
      ops::gate_select(routing.logits, optional(selection_bias_), optional(input.token_mask), rule);
  routing.slots = std::move(selected.slots);
  routing.weights = std::move(selected.weights);
  if (drops(input)) {
    at::Tensor keep = input.token_mask.defined() ? input.token_mask.unsqueeze(1) : at::Tensor();
    finish(input, selected.scores, std::move(keep), routing);
    return routing;
  }
  routing.load = std::move(selected.load);
  routing.dropped = at::zeros({}, routing.load.options());
  if (input.training) add_losses(input, selected.scores, routing.load, routing);
  return routing;
}

bool SoftmaxGate::drops(const GateInput& input) const {
  return options_.capacity_factor && (input.training || options_.capacity_in_inference);
}

// Capacity, load and losses of chosen slots; keep [T, 1] bool or undefined: tokens that count.
void SoftmaxGate::finish(const GateInput& input, const at::Tensor& scores, at::Tensor keep,
                         Routing& routing) const {
  const RoutingPlan plan = ops::routing_plan(routing.slots, options_.num_slots());
  const at::Tensor assigned = assigned_load(plan);
  if (drops(input)) {
    const SlotCapacity capacity = slot_capacity(options_, num_counted_tokens(input));
    KeptAssignments kept = keep_within(capacity, plan, routing.slots, options_.num_experts);
    keep = kept.keep;
    routing.slots = routing.slots.masked_fill(keep.logical_not(), -1);
    routing.load = kept.load;
    routing.dropped = kept.dropped;
  } else {
    routing.load = assigned;
    routing.dropped = at::zeros({}, assigned.options());
  }
  if (keep.defined()) routing.weights = routing.weights.masked_fill(keep.logical_not(), 0);
  if (input.training) add_losses(input, scores, assigned, routing);
}

void SoftmaxGate::update(const at::Tensor& load) {
  if (options_.selection_bias_update_rate == 0) return;
  TORCH_CHECK(load.dim() == 1 && load.size(0) == options_.num_slots(), "[gate] expected load [",
              options_.num_slots(), "], got ", load.sizes());
  const at::NoGradGuard no_grad;
  const at::Tensor counted = load.to(selection_bias_.options());
  const at::Tensor wanted = wanted_share(options_).to(counted.device()).mul(counted.sum());
  selection_bias_.add_(wanted.sub(counted).sign(), options_.selection_bias_update_rate);
}

void SoftmaxGate::visit(const std::string& prefix, const TensorVisitor& visitor) {
  visitor(prefix + "weight", weight_, TensorRole::kParameter);
  if (residual_weight_.defined())
    visitor(prefix + "residual.weight", residual_weight_, TensorRole::kParameter);
  if (selection_bias_.defined()) {
    visitor(prefix + "e_score_correction_bias", selection_bias_, TensorRole::kBuffer);
  }
}

std::unique_ptr<Gate> make_gate(const GateOptions& options, at::ScalarType dtype) {
  return std::make_unique<SoftmaxGate>(options, dtype);
}

}  // namespace motley
