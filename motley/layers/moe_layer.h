// The MoE layer: the one path of docs/architecture.md over its four seams.
// x [T, D] -> Gate -> Routing -> dispatch -> RoutingPlan -> store -> expert_ffn -> combine -> y [T, D]
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "motley/experts/expert_store.h"
#include "motley/layers/moe_block.h"
#include "motley/ops/zero_experts.h"
#include "motley/parallel/dispatcher.h"
#include "motley/routing/gate.h"

namespace motley {

class MoeLayer : public MoeBlock {
 public:
  // What one call carries from phase to phase; the shortcut schedule calls the phases apart.
  struct InFlight {
    at::Tensor x;
    Routing routing;
    std::unique_ptr<Dispatcher::Exchange> exchange;
    std::optional<RoutingPlan> plan;  // made by start where tokens stay, else by compute, if one is needed
    // What is added to the experts' sums where the token lives [T, D] fp32, or undefined: the
    // zero-computation experts' part, unless it is added with the sums, where tokens stay. Others may add
    // theirs before compute (a shared expert).
    at::Tensor local;
  };

  // Throws c10::Error unless the gate's slots are the store's experts and the zero-computation ones.
  MoeLayer(std::unique_ptr<Gate> gate, std::unique_ptr<ExpertStore> store,
           std::shared_ptr<Dispatcher> dispatcher, ZeroExperts zero_experts);

  // The four phases, in this order, each once per call; forward is the four in a row.
  Routing route(const GateInput& input) const;
  InFlight start(const at::Tensor& x, Routing routing) const;  // dispatch and prefetch begin
  void compute(InFlight& in_flight) const;
  at::Tensor finish(InFlight& in_flight) const;  // y [T, D] in x's dtype

  std::pair<at::Tensor, Routing> forward(const GateInput& input) const override;

  Gate& gate() override { return *gate_; }
  const Gate& gate() const override { return *gate_; }
  int64_t num_experts() const { return store_->num_experts(); }
  int64_t num_slots() const { return gate_->num_slots(); }
  // Names under prefix: gate.*, experts.gate_up_proj, experts.down_proj (+ _bias),
  // zero_experts.constant, zero_experts.constant_gate.
  void visit(const std::string& prefix, const TensorVisitor& visitor) override;

 private:
  bool needs_plan(const at::Tensor& x) const;

  std::unique_ptr<Gate> gate_;
  std::unique_ptr<ExpertStore> store_;
  std::shared_ptr<Dispatcher> dispatcher_;
  ZeroExperts zero_experts_;
};

}  // namespace motley
