#include "motley/ops/routing_plan.h"

#include <torch/library.h>
#include <limits>

#include "motley/ops/checks.h"
#include "motley/ops/operators.h"

namespace motley::ops {

RoutingPlan routing_plan(const at::Tensor& slots, int64_t num_experts) {
  auto [row_assignment, expert_offset, token_rows] = routing_plan_operator().call(slots, num_experts);
  return {row_assignment, expert_offset, token_rows};
}

namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> check_routing_plan(c10::DispatchKeySet keys,
                                                                  const at::Tensor& slots,
                                                                  int64_t num_experts) {
  TORCH_CHECK(slots.dim() == 2, "[routing_plan] expected slots [T, K], got ", slots.dim(), " dimensions");
  TORCH_CHECK(slots.scalar_type() == at::kInt, "[routing_plan] expected slots of dtype Int (int32), got ",
              slots.scalar_type());
  TORCH_CHECK(slots.numel() < std::numeric_limits<int32_t>::max(),
              "[routing_plan] expected fewer than 2^31 assignments, got ", slots.size(0), " tokens of ",
              slots.size(1), " choices");
  TORCH_CHECK(num_experts >= 0, "[routing_plan] expected num_experts of at least 0, got ", num_experts);
  return routing_plan_operator().redispatch(backend(keys), dense(slots), num_experts);
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, BackendSelect, m) { m.impl("routing_plan", TORCH_FN(check_routing_plan)); }
TORCH_LIBRARY_IMPL(motley, Autograd, m) { m.impl("routing_plan", torch::CppFunction::makeFallthrough()); }

}  // namespace motley::ops
