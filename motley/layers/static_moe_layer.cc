#include "motley/layers/static_moe_layer.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>

#include "motley/layers/zero_expert_parameters.h"
#include "motley/ops/routing_plan.h"
#include "motley/routing/capacity.h"

namespace motley {
namespace {

at::Tensor activate(const at::Tensor& hidden, const Activation& activation) {
  const int64_t width = activation.gated() ? hidden.size(2) / 2 : hidden.size(2);
  const at::Tensor g = hidden.narrow(2, 0, width);
  const at::Tensor u = activation.gated() ? hidden.narrow(2, width, width) : at::Tensor();
  switch (activation.kind) {
    case ActivationKind::kSwiGlu:
      return at::silu(g).mul(u);
    case ActivationKind::kGeGlu:
      return at::gelu(g).mul(u);
    case ActivationKind::kClampedSwiGlu: {
      const at::Tensor clamped = g.clamp_max(activation.limit);
      return clamped.mul(clamped.mul(activation.alpha).sigmoid())
          .mul(u.clamp(-activation.limit, activation.limit).add(1));
    }
    case ActivationKind::kGelu:
      return at::gelu(g);
    case ActivationKind::kRelu:
      return g.relu();
    case ActivationKind::kSilu:
      return at::silu(g);
  }
  TORCH_INTERNAL_ASSERT(false, "unknown activation");
}

// The place e * C + c of each assignment [T, K] int64; E * C for those without one.
at::Tensor places(const Routing& routing, int64_t num_experts, int64_t capacity) {
  const RoutingPlan plan = ops::routing_plan(routing.slots, num_experts);
  const at::Tensor has_row = plan.token_rows.ge(0);
  const at::Tensor expert = routing.slots.masked_fill(has_row.logical_not(), 0).to(at::kLong);
  const at::Tensor first_row =
      plan.expert_offset.to(at::kLong).index_select(0, expert.flatten()).view(expert.sizes());
  const at::Tensor place = expert.mul(capacity).add(plan.token_rows).sub(first_row);
  return place.masked_fill(has_row.logical_not(), num_experts * capacity);
}

}  // namespace

StaticMoeLayer::StaticMoeLayer(const GateOptions& options, std::unique_ptr<Gate> gate,
                               std::unique_ptr<ResidentStore> store, ZeroExperts zero_experts)
    : options_(options),
      gate_(std::move(gate)),
      store_(std::move(store)),
      zero_experts_(std::move(zero_experts)) {}

int64_t StaticMoeLayer::places_per_expert(const GateInput& input, const Routing& routing) const {
  const bool drops = options_.capacity_factor && (input.training || options_.capacity_in_inference);
  if (drops) return slot_capacity(options_, input.x.size(0)).ffn;
  // T would do without reading a number back, but makes the masks quadratic in T.
  return routing.load.narrow(0, 0, store_->num_experts()).max().item<int64_t>();
}

at::Tensor StaticMoeLayer::experts(const at::Tensor& dispatched) const {
  const ExpertWeights& weights = store_->weights();
  at::Tensor hidden = at::bmm(dispatched, weights.gate_up.transpose(1, 2));
  if (weights.gate_up_bias.defined()) hidden = hidden.add(weights.gate_up_bias.unsqueeze(1));
  at::Tensor out = at::bmm(activate(hidden, weights.activation), weights.down.transpose(1, 2));
  return weights.down_bias.defined() ? out.add(weights.down_bias.unsqueeze(1)) : out;
}

std::pair<at::Tensor, Routing> StaticMoeLayer::forward(const GateInput& input) const {
  const at::Tensor& x = input.x;
  Routing routing = gate_->route(input);
  const int64_t num_experts = store_->num_experts(), capacity = places_per_expert(input, routing);
  const int64_t num_places = num_experts * capacity;

  const at::Tensor place = places(routing, num_experts, capacity);
  // A mask [T, E * C]. One column more takes the assignments without a place. Masks are what takes the
  // memory: each is filled in place and gone after its product.
  const auto mask = [&](const at::Tensor& values) {
    return at::zeros({x.size(0), num_places + 1}, values.options())
        .scatter_(1, place, values)
        .narrow(1, 0, num_places)
        .to(x.scalar_type());
  };
  const at::Tensor dispatched = at::matmul(mask(at::ones_like(routing.weights).detach()).t(), x)
                                    .view({num_experts, capacity, x.size(1)});
  const at::Tensor out = experts(dispatched).reshape({num_places, x.size(1)});
  at::Tensor y = at::matmul(mask(routing.weights), out);
  const at::Tensor local = zero_expert_part(x, routing, num_experts, zero_experts_);
  if (local.defined()) y = y.to(at::kFloat).add(local).to(x.scalar_type());
  return {std::move(y), std::move(routing)};
}

void StaticMoeLayer::visit(const std::string& prefix, const TensorVisitor& visitor) {
  gate_->visit(prefix + "gate.", visitor);
  store_->visit(prefix + "experts.", visitor);
  visit_zero_experts(prefix + "zero_experts.", visitor, zero_experts_);
}

}  // namespace motley
