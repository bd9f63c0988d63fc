// How many assignments a slot keeps, and which ones are dropped.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "motley/ops/routing_plan.h"
#include "motley/routing/gate_options.h"

namespace motley {

struct SlotCapacity {
  int64_t ffn = 0;   // of each expert with a feed-forward network
  int64_t zero = 0;  // of each zero-computation expert
};

// Eq. 8 of MoE++ (arXiv 2410.07348), rounded up, at most num_tokens; options.capacity_factor must be set.
SlotCapacity slot_capacity(const GateOptions& options, int64_t num_tokens);

struct KeptAssignments {
  at::Tensor keep;     // [T, K] bool: chosen and within capacity
  at::Tensor load;     // [S] int64
  at::Tensor dropped;  // int64 scalar
};

// plan: of slots [T, K] over all S slots; earlier tokens keep their place in a slot.
KeptAssignments keep_within(const SlotCapacity& capacity, const RoutingPlan& plan, const at::Tensor& slots,
                            int64_t num_experts);

// Assignments of each slot [S] int64, without drops.
at::Tensor assigned_load(const RoutingPlan& plan);

}  // namespace motley
