#include "motley/layers/moe_layer.h"

#include <ATen/core/grad_mode.h>

#include "motley/layers/zero_expert_parameters.h"
#include "motley/ops/expert_ffn.h"
#include "motley/ops/part.h"

namespace motley {

MoeLayer::MoeLayer(std::unique_ptr<Gate> gate, std::unique_ptr<ExpertStore> store,
                   std::shared_ptr<Dispatcher> dispatcher, ZeroExperts zero_experts)
    : gate_(std::move(gate)),
      store_(std::move(store)),
      dispatcher_(std::move(dispatcher)),
      zero_experts_(std::move(zero_experts)) {
  TORCH_CHECK(gate_->num_slots() == store_->num_experts() + zero_experts_.count(),
              "[MoeLayer] expected a gate of ", store_->num_experts(), " + ", zero_experts_.count(),
              " slots, got one of ", gate_->num_slots());
}

Routing MoeLayer::route(const GateInput& input) const {
  const Part part("gates");
  return gate_->route(input);
}

bool MoeLayer::needs_plan(const at::Tensor& x) const {
  return !x.is_cuda() || at::GradMode::is_enabled() || !dispatcher_->keeps_tokens() || !store_->resident();
}

MoeLayer::InFlight MoeLayer::start(const at::Tensor& x, Routing routing) const {
  const Part part("dispatch");
  InFlight in_flight;
  in_flight.exchange = dispatcher_->start_dispatch(x, routing.slots, routing.weights);
  if (!dispatcher_->keeps_tokens()) {
    in_flight.local = zero_expert_part(x, routing, num_experts(), zero_experts_);
  } else if (needs_plan(x)) {
    in_flight.plan = ops::routing_plan(routing.slots, num_experts());
    store_->prefetch(*in_flight.plan);
  }
  in_flight.x = x;
  in_flight.routing = std::move(routing);
  return in_flight;
}

void MoeLayer::compute(InFlight& in_flight) const {
  const Part part("experts");
  const DispatchedTokens tokens = dispatcher_->finish_dispatch(*in_flight.exchange);
  const bool planned = in_flight.plan || needs_plan(in_flight.x);
  if (planned && !in_flight.plan) in_flight.plan = ops::routing_plan(tokens.slots, num_experts());
  const at::ScalarType dtype =
      dispatcher_->partial_dtype(in_flight.x.scalar_type(), in_flight.local.defined());
  const ZeroExperts none;
  const ZeroExperts& added =
      dispatcher_->keeps_tokens() && zero_experts_.give_anything() ? zero_experts_ : none;
  const at::Tensor partial =
      planned ? ops::expert_ffn_with_zero_experts(tokens.x, tokens.slots, tokens.weights, *in_flight.plan,
                                                  store_->acquire(*in_flight.plan), added, dtype)
              : ops::expert_ffn_from_slots(tokens.x, tokens.slots, tokens.weights, num_experts(),
                                           *store_->resident(), added, dtype);
  dispatcher_->start_combine(*in_flight.exchange, partial);
}

at::Tensor MoeLayer::finish(InFlight& in_flight) const {
  const Part part("combine");
  return dispatcher_->finish_combine(*in_flight.exchange, in_flight.local);
}

std::pair<at::Tensor, Routing> MoeLayer::forward(const GateInput& input) const {
  InFlight in_flight = start(input.x, route(input));
  compute(in_flight);
  at::Tensor y = finish(in_flight);
  return {std::move(y), std::move(in_flight.routing)};
}

void MoeLayer::visit(const std::string& prefix, const TensorVisitor& visitor) {
  gate_->visit(prefix + "gate.", visitor);
  store_->visit(prefix + "experts.", visitor);
  visit_zero_experts(prefix + "zero_experts.", visitor, zero_experts_);
}

}  // namespace motley
