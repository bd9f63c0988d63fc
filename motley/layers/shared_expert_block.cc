#include "motley/layers/shared_expert_block.h"

#include <ATen/ops/linear.h>

namespace motley {

SharedExpertBlock::SharedExpertBlock(std::unique_ptr<MoeLayer> routed, FeedForward shared,
                                     at::Tensor shared_gate, SharedExpertNames names)
    : routed_(std::move(routed)),
      shared_(std::move(shared)),
      shared_gate_(std::move(shared_gate)),
      names_(names) {}

std::pair<at::Tensor, Routing> SharedExpertBlock::forward(const GateInput& input) const {
  MoeLayer::InFlight in_flight = routed_->start(input.x, routed_->route(input));
  at::Tensor shared = shared_.forward(input.x);
  if (shared_gate_.defined()) shared = shared.mul(at::linear(input.x, shared_gate_).sigmoid());
  shared = shared.to(at::kFloat);
  in_flight.local = in_flight.local.defined() ? in_flight.local.add(shared) : shared;
  routed_->compute(in_flight);
  at::Tensor y = routed_->finish(in_flight);
  return {std::move(y), std::move(in_flight.routing)};
}

void SharedExpertBlock::visit(const std::string& prefix, const TensorVisitor& visitor) {
  routed_->visit(prefix, visitor);
  shared_.visit(prefix + (names_ == SharedExpertNames::kQwen2Moe ? "shared_expert." : "shared_experts."),
                visitor);
  if (shared_gate_.defined())
    visitor(prefix + "shared_expert_gate.weight", shared_gate_, TensorRole::kParameter);
}

}  // namespace motley
