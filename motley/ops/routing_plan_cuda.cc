#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/where.h>
#include <torch/library.h>

#include "motley/kernels/cuda/expert_layer.h"
#include "motley/ops/cuda_tensors.h"

namespace motley::ops {
namespace {

using Plan = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// More experts than the kernels count, or none: torch's stable sort.
Plan plan_by_sorting(const at::Tensor& slots, int64_t num_experts) {
  const auto flat = slots.flatten();
  const auto expert = at::where(flat.ge(0).logical_and(flat.lt(num_experts)), flat, num_experts).to(at::kInt);
  const auto [sorted, order] = at::sort(expert, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const auto bounds = at::arange(num_experts + 1, slots.options());
  const auto expert_offset = at::searchsorted(sorted, bounds, /*out_int32=*/true);
  const auto row_assignment = order.to(at::kInt).masked_fill(sorted.eq(num_experts), -1);
  auto token_rows = at::empty_like(flat);
  token_rows.index_copy_(0, order, at::arange(flat.numel(), slots.options()));
  token_rows.masked_fill_(expert.eq(num_experts), -1);
  return {row_assignment, expert_offset, token_rows.view(slots.sizes())};
}

Plan routing_plan_cuda(const at::Tensor& slots, int64_t num_experts) {
  const c10::cuda::CUDAGuard guard(slots.device());
  if (num_experts < 1 || num_experts > cuda::kMaxExperts) return plan_by_sorting(slots, num_experts);
  const int num_assignments = static_cast<int>(slots.numel()), experts = static_cast<int>(num_experts);
  at::Tensor row_assignment = at::empty({num_assignments}, slots.options());
  at::Tensor expert_offset = at::empty({num_experts + 1}, slots.options());
  at::Tensor token_rows = at::empty(slots.sizes(), slots.options());
  const at::Tensor tiles = scratch(cuda::tile_schedule_bytes(num_assignments, experts), slots);
  const at::Tensor workspace = scratch(cuda::routing_plan_workspace_bytes(num_assignments, experts), slots);
  cuda::routing_plan(integers(slots), num_assignments, experts,
                     {row_assignment.mutable_data_ptr<int32_t>(), expert_offset.mutable_data_ptr<int32_t>(),
                      token_rows.mutable_data_ptr<int32_t>()},
                     cuda::take_tile_schedule(num_assignments, experts, tiles.mutable_data_ptr()),
                     workspace.mutable_data_ptr(), current_stream());
  return {row_assignment, expert_offset, token_rows};
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CUDA, m) { m.impl("routing_plan", routing_plan_cuda); }

}  // namespace motley::ops
