#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <array>
#include <optional>

#include "motley/ops/expert_layer_cuda.h"
#include "motley/ops/token_sum_cuda.h"
#include "motley/ops/zero_experts_cuda.h"

namespace motley::ops {
namespace {

void rows_fast(const CudaExperts& experts, const at::Tensor& x, const at::Tensor& rows,
               const OptionalTensor& hidden) {
  const DeviceSchedule schedule(experts.expert_offset, experts.place_of_expert, experts.max_rows());
  const auto layer = experts.layer(schedule.schedule(), nullptr);
  const at::Tensor workspace = scratch(cuda::expert_rows_workspace_bytes(layer.shape), x);
  cuda::expert_rows(layer, x.const_data_ptr(), x.size(1), true, hidden ? hidden->mutable_data_ptr() : nullptr,
                    rows.mutable_data_ptr(), workspace.mutable_data_ptr(), current_stream());
}

void rows_plainly(const CudaExperts& experts, const at::Tensor& x, const at::Tensor& rows,
                  const OptionalTensor& hidden) {
  const int64_t hidden_width = experts.gate_up.size(1), width = experts.expert_width();
  const at::Tensor h = hidden ? *hidden : at::empty({experts.max_rows(), hidden_width}, x.options());
  const at::Tensor activated = at::empty({experts.max_rows(), width}, x.options());
  const DeviceSchedule schedule(experts.expert_offset, experts.place_of_expert, experts.max_rows());
  cuda::plain::multiply(
      plain_rows(x, experts.row_assignment, experts.top_k, true), static_cast<int>(experts.model_width()),
      plain_weights(experts.gate_up, experts.gate_up_bias, true), static_cast<int>(hidden_width),
      schedule.schedule(), schedule.max_tiles(), plain_output(h), current_stream());
  cuda::plain::activate(experts.activation, h.const_data_ptr(), element_of(x.scalar_type()),
                        static_cast<int>(width), integers(experts.expert_offset),
                        static_cast<int>(experts.num_experts()), static_cast<int>(experts.max_rows()),
                        activated.mutable_data_ptr(), current_stream());
  cuda::plain::multiply(plain_rows(activated, experts.row_assignment, experts.top_k, false),
                        static_cast<int>(width), plain_weights(experts.down, experts.down_bias, true),
                        static_cast<int>(experts.model_width()), schedule.schedule(), schedule.max_tiles(),
                        plain_output(rows), current_stream());
}

void expert_rows_cuda(const at::Tensor& x, const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                      int64_t top_k, const at::Tensor& gate_up, const at::Tensor& down,
                      const OptionalTensor& gate_up_bias, const OptionalTensor& down_bias,
                      const OptionalTensor& place_of_expert, int64_t activation, double alpha, double limit,
                      const at::Tensor& rows, const OptionalTensor& hidden) {
  const c10::cuda::CUDAGuard guard(x.device());
  const CudaExperts experts{
      row_assignment, expert_offset, x.size(0), top_k,           gate_up,
      down,           gate_up_bias,  down_bias, place_of_expert, activation_of(activation, alpha, limit)};
  if (experts.fast()) {
    rows_fast(experts, x, rows, hidden);
  } else {
    rows_plainly(experts, x, rows, hidden);
  }
}

// Integers of a plan, or room for them that is not written.
at::Tensor given_or_room(const OptionalTensor& given, int64_t size, const at::Tensor& like) {
  return given ? *given : at::empty({size}, like.options().dtype(at::kInt));
}

at::Tensor expert_ffn_forward_cuda(const at::Tensor& x, const at::Tensor& gate_weights,
                                   const OptionalTensor& row_assignment, const OptionalTensor& expert_offset,
                                   const OptionalTensor& token_rows, const at::Tensor& gate_up,
                                   const at::Tensor& down, const OptionalTensor& gate_up_bias,
                                   const OptionalTensor& down_bias, const OptionalTensor& place_of_expert,
                                   int64_t activation, double alpha, double limit,
                                   const OptionalTensor& slots, int64_t num_experts, at::IntArrayRef kinds,
                                   const OptionalTensor& constant, const OptionalTensor& constant_gate,
                                   at::ScalarType out_dtype, const OptionalTensor& hidden) {
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor assignment = given_or_room(row_assignment, gate_weights.numel(), x),
                   offset = given_or_room(expert_offset, num_experts + 1, x);
  const CudaExperts experts{
      assignment, offset,       x.size(0), gate_weights.size(1), gate_up,
      down,       gate_up_bias, down_bias, place_of_expert,      activation_of(activation, alpha, limit)};
  std::optional<cuda::ZeroExpertLayer> zero_experts;
  if (!kinds.empty())
    zero_experts = cuda_zero_experts(x, *slots, gate_weights, num_experts, kinds, constant, constant_gate);
  const bool fast = experts.fast();
  auto layer = experts.layer({}, integers(token_rows));
  const auto* zero = zero_experts ? &*zero_experts : nullptr;
  const bool few = fast && !hidden && cuda::few_tokens(layer.family, layer.shape, zero);
  if (!few && !row_assignment) {
    const auto [made_assignment, made_offset, made_rows] = routing_plan_operator().call(*slots, num_experts);
    return expert_ffn_forward_cuda(x, gate_weights, made_assignment, made_offset, made_rows, gate_up, down,
                                   gate_up_bias, down_bias, place_of_expert, activation, alpha, limit, slots,
                                   num_experts, kinds, constant, constant_gate, out_dtype, hidden);
  }
  const at::Tensor y = at::empty(x.sizes(), x.options().dtype(out_dtype));
  if (!fast) {
    const std::array sizes = {experts.max_rows(), experts.model_width()};
    // Only an expert that is nowhere leaves rows unwritten that a token would add.
    const at::Tensor rows = place_of_expert ? at::zeros(sizes, x.options()) : at::empty(sizes, x.options());
    rows_plainly(experts, x, rows, hidden);
    if (zero)
      cuda::zero_experts(
          *zero, {rows.const_data_ptr(), layer.token_rows, y.mutable_data_ptr(), out_dtype == at::kFloat},
          current_stream());
    else
      token_sum_into(rows, gate_weights, *token_rows, y);
    return y;
  }
  std::optional<DeviceSchedule> schedule;
  if (!few) {
    schedule.emplace(offset, place_of_expert, experts.max_rows());
    layer.plan.schedule = schedule->schedule();
  }
  const at::Tensor workspace = scratch(cuda::expert_layer_forward_workspace_bytes(layer.shape), x);
  const cuda::ExpertLayerForward forward = {.x = x.const_data_ptr(),
                                            .x_stride = x.size(1),
                                            .gate_weights = gate_weights.const_data_ptr<float>(),
                                            .hidden = hidden ? hidden->mutable_data_ptr() : nullptr,
                                            .y = y.mutable_data_ptr(),
                                            .y_fp32 = out_dtype == at::kFloat,
                                            .slots = row_assignment ? nullptr : integers(slots),
                                            .zero_experts = zero};
  cuda::expert_layer_forward(layer, forward, workspace.mutable_data_ptr(), current_stream());
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CUDA, m) {
  m.impl("expert_rows", expert_rows_cuda);
  m.impl("expert_ffn_forward", expert_ffn_forward_cuda);
}

}  // namespace motley::ops
