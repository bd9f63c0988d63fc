// The dense feed-forward of a transformer block: down(activation(gate x) * up x).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "motley/ops/activation.h"
#include "motley/ops/parameters.h"

namespace motley {

class FeedForward {
 public:
  // kSwiGlu or kGeGlu; others throw c10::Error. Parameters are zeros, to be filled through visit().
  FeedForward(int64_t hidden_size, int64_t intermediate_size, const Activation& activation,
              at::ScalarType dtype);

  at::Tensor forward(const at::Tensor& x) const;  // [T, D] -> [T, D]
  // Names: gate_proj.weight, up_proj.weight, down_proj.weight.
  void visit(const std::string& prefix, const TensorVisitor& visitor);

 private:
  ActivationKind kind_;
  at::Tensor gate_, up_, down_;  // [F, D], [F, D], [D, F]
};

}  // namespace motley
