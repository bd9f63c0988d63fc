// The Gate seam: chooses slots for tokens. A gate is a pure function of its input and its parameters.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "motley/ops/parameters.h"
#include "motley/ops/routing.h"

namespace motley {

struct GateInput {
  at::Tensor x;                // [T, D]
  at::Tensor previous_logits;  // [T, S] fp32: the previous MoE layer's raw logits; undefined in the first
  at::Tensor token_mask;  // [T] bool: false tokens get no slots and count in no loss; undefined: all true
  bool training = false;
  std::optional<at::Generator> generator;  // for gates with noise
};

class Gate {
 public:
  virtual ~Gate() = default;
  virtual Routing route(const GateInput& input) const = 0;
  // What the gate learns outside gradients (bias-only balancing), from the load [S] of one optimizer step.
  virtual void update(const at::Tensor& load) {}
  virtual int64_t num_slots() const = 0;
  virtual void visit(const std::string& prefix, const TensorVisitor& visitor) = 0;
};

}  // namespace motley
