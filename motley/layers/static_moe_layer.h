// The padded static MoE layer of GShard and fairseq: the baseline that dynamic gating is measured against
// (arXiv 2303.06182, section V). It stands outside the seams and has no part in any fast path.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "motley/experts/resident_store.h"
#include "motley/layers/moe_block.h"
#include "motley/ops/zero_experts.h"
#include "motley/routing/gate_options.h"

namespace motley {

// Tokens are copied to C places of each of E experts by a product with a mask [T, E * C], the experts run as
// batched products over all places, filled or not, and a second product with the mask brings the results
// back. C is the capacity where the gate drops, else the fullest expert's assignments. Memory and time grow
// with T * E * C * D.
class StaticMoeLayer : public MoeBlock {
 public:
  StaticMoeLayer(const GateOptions& options, std::unique_ptr<Gate> gate, std::unique_ptr<ResidentStore> store,
                 ZeroExperts zero_experts);

  std::pair<at::Tensor, Routing> forward(const GateInput& input) const override;
  Gate& gate() override { return *gate_; }
  const Gate& gate() const override { return *gate_; }
  // The names of MoeLayer::visit.
  void visit(const std::string& prefix, const TensorVisitor& visitor) override;

 private:
  int64_t places_per_expert(const GateInput& input, const Routing& routing) const;  // C
  at::Tensor experts(const at::Tensor& dispatched) const;                           // [E, C, D] -> [E, C, D]

  GateOptions options_;
  std::unique_ptr<Gate> gate_;
  std::unique_ptr<ResidentStore> store_;
  ZeroExperts zero_experts_;
};

}  // namespace motley
