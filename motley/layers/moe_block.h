// What a model sees of an MoE feed-forward block, whichever way it is computed.
#pragma once

#include <string>
#include <utility>

#include "motley/routing/gate.h"

namespace motley {

class MoeBlock {
 public:
  virtual ~MoeBlock() = default;
  // A pure function: y [T, D] in x's dtype, and what the gate decided.
  virtual std::pair<at::Tensor, Routing> forward(const GateInput& input) const = 0;
  virtual Gate& gate() = 0;
  virtual const Gate& gate() const = 0;
  virtual void visit(const std::string& prefix, const TensorVisitor& visitor) = 0;
};

}  // namespace motley
