#include "motley/layers/moe_layer.h"

#include <ATen/core/grad_mode.h>

#include "motley/layers/zero_expert_parameters.h"
#include "motley/ops/expert_ffn.h"
#include "motley/ops/expert_ffn_compute.h"
#include "motley/ops/part.h"
#include "motley/ops/token_sum_zero_experts.h"

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

// In inference on a CPU, where memory is what the sum of rows and zero-computation experts waits for.
bool MoeLayer::sums_in_one_pass(const at::Tensor& x) const {
  return x.is_cpu() && !at::GradMode::is_enabled() && dispatcher_->keeps_tokens() &&
         computes_anything(zero_experts_);
}

MoeLayer::InFlight MoeLayer::start(const at::Tensor& x, Routing routing) const {
  const Part part("dispatch");
  InFlight in_flight;
  in_flight.exchange = dispatcher_->start_dispatch(x, routing.slots, routing.weights);
  if (dispatcher_->keeps_tokens()) {
    in_flight.plan = ops::routing_plan(routing.slots, num_experts());
    store_->prefetch(*in_flight.plan);
  }
  in_flight.zero_experts_last = sums_in_one_pass(x);
  if (!in_flight.zero_experts_last) {
    in_flight.local = zero_expert_part(x, routing, num_experts(), zero_experts_);
  }
  in_flight.x = x;
  in_flight.routing = std::move(routing);
  return in_flight;
}

void MoeLayer::compute(InFlight& in_flight) const {
  const Part part("experts");
  const DispatchedTokens tokens = dispatcher_->finish_dispatch(*in_flight.exchange);
  if (!in_flight.plan) in_flight.plan = ops::routing_plan(tokens.slots, num_experts());
  const auto source = store_->acquire(*in_flight.plan);
  if (in_flight.zero_experts_last && !in_flight.local.defined()) {
    const at::Tensor rows = ops::compute_expert_rows(tokens.x, *in_flight.plan, *source);
    const Part sum("combine");
    dispatcher_->start_combine(*in_flight.exchange,
                               ops::token_sum_with_zero_experts(rows, *in_flight.plan, tokens.x, tokens.slots,
                                                                tokens.weights, zero_experts_));
    return;
  }
  if (in_flight.zero_experts_last) {
    in_flight.local =
        in_flight.local.add(zero_expert_part(in_flight.x, in_flight.routing, num_experts(), zero_experts_));
  }
  const at::ScalarType dtype =
      dispatcher_->partial_dtype(in_flight.x.scalar_type(), in_flight.local.defined());
  const at::Tensor partial = ops::expert_ffn(tokens.x, tokens.weights, *in_flight.plan, source, dtype);
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
