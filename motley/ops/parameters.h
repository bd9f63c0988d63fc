// How modules show their tensors to optimizers and checkpoints.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

namespace motley {

enum class TensorRole {
  kParameter,  // trained by gradient
  kBuffer,     // state that is saved but not trained by gradient (a bias of bias-only balancing)
};

// Called once per tensor, in a fixed order, with its full name ("model.layers.0.mlp.gate.weight").
// The tensor may be replaced (loading, casting, moving to a device).
using TensorVisitor = std::function<void(const std::string& name, at::Tensor& tensor, TensorRole role)>;

}  // namespace motley
