// What a gate decides for T tokens. Shapes: T tokens, K choices a token, S router slots
// (E experts with a feed-forward network first, then Z zero-computation experts).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace motley {

// A differentiable scalar that training adds to the loss as it is (its coefficient is applied).
struct AuxiliaryLoss {
  std::string name;  // "balance", "z", ...: the key under which metrics report it
  at::Tensor value;  // fp32 scalar, attached to the graph
};

struct Routing {
  at::Tensor slots;    // [T, K] int32: chosen slot, or -1 for no choice and for a dropped one
  at::Tensor weights;  // [T, K] fp32: attached to the graph; 0 where slots is -1
  at::Tensor logits;   // [T, S] fp32: raw (residual included; before noise, bias and normalisation)
  at::Tensor load;     // [S] int64: kept assignments of each slot, counted after drops
  at::Tensor dropped;  // int64 scalar: assignments lost to capacity (0 when dropless)
  std::vector<AuxiliaryLoss> losses;
};

}  // namespace motley
