// A routed MoE layer beside an expert that every token takes.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "motley/layers/moe_layer.h"
#include "motley/layers/moe_options.h"
#include "motley/nn/feed_forward.h"

namespace motley {

// y = routed(x) + s * shared(x), s = 1 (DeepSeek-MoE, arXiv 2401.06066) or sigmoid(w x) (Qwen2-MoE). The
// shared expert runs while tokens are under way, and is added in fp32 with one rounding at the end.
class SharedExpertBlock : public MoeBlock {
 public:
  SharedExpertBlock(std::unique_ptr<MoeLayer> routed, FeedForward shared, at::Tensor shared_gate,
                    SharedExpertNames names);

  std::pair<at::Tensor, Routing> forward(const GateInput& input) const override;
  Gate& gate() override { return routed_->gate(); }
  const Gate& gate() const override { return std::as_const(*routed_).gate(); }
  // The routed layer's names, and those of SharedExpertNames.
  void visit(const std::string& prefix, const TensorVisitor& visitor) override;

 private:
  std::unique_ptr<MoeLayer> routed_;
  FeedForward shared_;
  at::Tensor shared_gate_;  // [1, D], or undefined
  SharedExpertNames names_;
};

}  // namespace motley
