#include "motley/routing/capacity.h"

#include <ATen/ops/full.h>
#include <ATen/ops/minimum.h>

#include <algorithm>
#include <cmath>

namespace motley {
namespace {

// A product that is whole but for rounding (0.1 * 30) must not take one more place. A large factor may be
// beyond int64, so the limit comes first.
int64_t round_up(double value, int64_t limit) {
  return static_cast<int64_t>(std::min(static_cast<double>(limit), std::ceil(value * (1.0 - 1e-12))));
}

}  // namespace

SlotCapacity slot_capacity(const GateOptions& options, int64_t num_tokens) {
  const int64_t per_token =
      options.capacity_unit == CapacityUnit::kAssignments ? options.num_experts_per_tok : 1;
  // C_FFN = gamma tau T / (tau N_FFN + N_ZC), C_ZC = gamma T / (tau N_FFN + N_ZC)  (Eq. 8)
  const double total = options.capacity_factor.value() * static_cast<double>(num_tokens * per_token);
  const double parts = options.tau * static_cast<double>(options.num_experts) +
                       static_cast<double>(options.num_zero_experts());
  return {round_up(total * (options.tau / parts), num_tokens), round_up(total / parts, num_tokens)};
}

at::Tensor assigned_load(const RoutingPlan& plan) {
  const int64_t num_slots = plan.num_experts();
  return plan.expert_offset.narrow(0, 1, num_slots)
      .sub(plan.expert_offset.narrow(0, 0, num_slots))
      .to(at::kLong);
}

KeptAssignments keep_within(const SlotCapacity& capacity, const RoutingPlan& plan, const at::Tensor& slots,
                            int64_t num_experts) {
  const int64_t num_slots = plan.num_experts();
  at::Tensor limit = at::full({num_slots}, capacity.zero, plan.expert_offset.options());
  limit.narrow(0, 0, num_experts).fill_(capacity.ffn);

  // The plan is sorted by slot and, within one, by token: places past the limit are the last tokens.
  const at::Tensor past = plan.expert_offset.narrow(0, 0, num_slots).add(limit);
  const at::Tensor chosen = slots.clamp_min(0).flatten().to(at::kLong);
  const at::Tensor keep =
      slots.ge(0).logical_and(plan.token_rows.lt(past.index_select(0, chosen).view(slots.sizes())));

  const at::Tensor assigned = assigned_load(plan);
  const at::Tensor load = at::minimum(assigned, limit.to(at::kLong));
  return {keep, load, assigned.sum().sub(load.sum())};
}

}  // namespace motley
