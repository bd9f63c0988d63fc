#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <array>

#include "motley/ops/expert_layer_cuda.h"
#include "motley/ops/token_sum_cuda.h"

namespace motley::ops {
namespace {

void rows_fast(const CudaExperts& experts, const at::Tensor& x, const at::Tensor& rows,
               const OptionalTensor& hidden) {
  const DeviceSchedule schedule(experts.expert_offset, experts.place_of_expert, experts.max_rows());
  const auto layer = experts.layer(schedule, nullptr);
  const at::Tensor workspace = scratch(cuda::expert_rows_workspace_bytes(layer.shape), x);
  cuda::expert_rows(layer, x.const_data_ptr(), x.size(1), hidden ? hidden->mutable_data_ptr() : nullptr,
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

at::Tensor expert_ffn_forward_cuda(const at::Tensor& x, const at::Tensor& gate_weights,
                                   const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                                   const at::Tensor& token_rows, const at::Tensor& gate_up,
                                   const at::Tensor& down, const OptionalTensor& gate_up_bias,
                                   const OptionalTensor& down_bias, const OptionalTensor& place_of_expert,
                                   int64_t activation, double alpha, double limit, at::ScalarType out_dtype,
                                   const OptionalTensor& hidden) {
  const c10::cuda::CUDAGuard guard(x.device());
  const CudaExperts experts{
      row_assignment, expert_offset, x.size(0), token_rows.size(1), gate_up,
      down,           gate_up_bias,  down_bias, place_of_expert,    activation_of(activation, alpha, limit)};
  const at::Tensor y = at::empty(x.sizes(), x.options().dtype(out_dtype));
  if (!experts.fast()) {
    const std::array sizes = {experts.max_rows(), experts.model_width()};
    // Only an expert that is nowhere leaves rows unwritten that a token would add.
    const at::Tensor rows = place_of_expert ? at::zeros(sizes, x.options()) : at::empty(sizes, x.options());
    rows_plainly(experts, x, rows, hidden);
    token_sum_into(rows, gate_weights, token_rows, y);
    return y;
  }
  const DeviceSchedule schedule(expert_offset, place_of_expert, experts.max_rows());
  const auto layer = experts.layer(schedule, integers(token_rows));
  const at::Tensor workspace = scratch(cuda::expert_layer_forward_workspace_bytes(layer.shape), x);
  const cuda::ExpertLayerForward forward = {.x = x.const_data_ptr(),
                                            .x_stride = x.size(1),
                                            .gate_weights = gate_weights.const_data_ptr<float>(),
                                            .hidden = hidden ? hidden->mutable_data_ptr() : nullptr,
                                            .y = y.mutable_data_ptr(),
                                            .y_fp32 = out_dtype == at::kFloat};
  cuda::expert_layer_forward(layer, forward, workspace.mutable_data_ptr(), current_stream());
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CUDA, m) {
  m.impl("expert_rows", expert_rows_cuda);
  m.impl("expert_ffn_forward", expert_ffn_forward_cuda);
}

}  // namespace motley::ops
