#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>

#include "motley/ops/expert_layer_cuda.h"
#include "motley/ops/token_sum_cuda.h"

namespace motley::ops {
namespace {

using InputGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

cuda::Gradient gradient_of(const OptionalTensor& gradient, bool accumulate) {
  if (!gradient) return {};
  // Contiguous, but the stride of a dimension of one may be anything.
  const int64_t stride = gradient->numel() / std::max<int64_t>(1, gradient->size(0));
  return {gradient->mutable_data_ptr(), stride, gradient->scalar_type() == at::kFloat, accumulate};
}

// Rows of experts that are not here must add nothing.
at::Tensor rows_to_add(const CudaExperts& experts, at::IntArrayRef sizes, const at::TensorOptions& options) {
  return experts.place_of_expert ? at::zeros(sizes, options) : at::empty(sizes, options);
}

InputGradients input_fast(const CudaExperts& experts, const at::Tensor& dy, const at::Tensor& hidden,
                          const at::Tensor& gate_weights, const at::Tensor& token_rows,
                          const cuda::Gradient& down) {
  const at::Tensor dx = at::empty(dy.sizes(), dy.options());
  const at::Tensor dgate_weights = at::empty(gate_weights.sizes(), gate_weights.options());
  const at::Tensor dhidden = at::empty(hidden.sizes(), hidden.options());
  const at::Tensor activated = at::empty({experts.max_rows(), experts.expert_width()}, hidden.options());
  const DeviceSchedule schedule(experts.expert_offset, experts.place_of_expert, experts.max_rows());
  const auto layer = experts.layer(schedule.schedule(), integers(token_rows));
  const at::Tensor workspace = scratch(cuda::expert_layer_backward_input_workspace_bytes(layer.shape), dy);
  const cuda::ExpertLayerBackwardInput backward = {
      .dy = dy.const_data_ptr(),
      .dy_stride = dy.size(1),
      .gate_weights = gate_weights.const_data_ptr<float>(),
      .hidden = hidden.const_data_ptr(),
      .dx = dx.mutable_data_ptr(),
      .dgate_weights = dgate_weights.mutable_data_ptr<float>(),
      .dhidden = dhidden.mutable_data_ptr(),
      .weighted = activated.mutable_data_ptr(),
      .down = down,
  };
  cuda::expert_layer_backward_input(layer, backward, workspace.mutable_data_ptr(), current_stream());
  return {dx, dgate_weights, dhidden, activated};
}

// The plain kernels write at the places of experts alone.
cuda::plain::Output plain_gradient(const at::Tensor& gradient, const OptionalTensor& place_of_expert,
                                   int64_t num_experts, bool accumulate) {
  if (!accumulate && (place_of_expert || gradient.size(0) != num_experts)) gradient.zero_();
  return plain_output(gradient);
}

InputGradients input_plainly(const CudaExperts& experts, const at::Tensor& dy, const at::Tensor& hidden,
                             const at::Tensor& gate_weights, const at::Tensor& token_rows,
                             const OptionalTensor& down_grad, bool accumulate) {
  const int64_t max_rows = experts.max_rows(), width = experts.expert_width();
  const DeviceSchedule schedule(experts.expert_offset, experts.place_of_expert, max_rows);
  const auto dy_rows = plain_rows(dy, experts.row_assignment, experts.top_k, true);
  const at::Tensor dactivated = at::empty({max_rows, width}, gate_weights.options());
  cuda::plain::multiply(dy_rows, static_cast<int>(experts.model_width()),
                        plain_weights(experts.down, std::nullopt, false), static_cast<int>(width),
                        schedule.schedule(), schedule.max_tiles(), plain_output(dactivated),
                        current_stream());
  const at::Tensor dhidden = at::empty(hidden.sizes(), hidden.options());
  const at::Tensor activated = at::empty({max_rows, width}, hidden.options());
  const at::Tensor dgate_weights = at::zeros(gate_weights.sizes(), gate_weights.options());
  const cuda::plain::RowsGradient gradient = {
      .dactivated = dactivated.const_data_ptr<float>(),
      .hidden = hidden.const_data_ptr(),
      .gate_weights = gate_weights.const_data_ptr<float>(),
      .row_assignment = integers(experts.row_assignment),
      .dy = dy_rows,
      .down_bias = experts.down_bias ? experts.down_bias->const_data_ptr() : nullptr,
      .model_width = static_cast<int>(experts.model_width()),
      .expert_width = static_cast<int>(width),
      .dhidden = dhidden.mutable_data_ptr(),
      .activated = activated.mutable_data_ptr(),
      .dgate_weights = dgate_weights.mutable_data_ptr<float>(),
  };
  cuda::plain::activate_backward(experts.activation, element_of(hidden.scalar_type()), gradient,
                                 plain_places(experts.expert_offset, experts.place_of_expert),
                                 static_cast<int>(max_rows), current_stream());
  const at::Tensor rows = rows_to_add(experts, {max_rows, experts.model_width()}, gate_weights.options());
  cuda::plain::multiply(plain_rows(dhidden, experts.row_assignment, experts.top_k, false),
                        static_cast<int>(hidden.size(1)), plain_weights(experts.gate_up, std::nullopt, false),
                        static_cast<int>(experts.model_width()), schedule.schedule(), schedule.max_tiles(),
                        plain_output(rows), current_stream());
  const at::Tensor dx = at::empty(dy.sizes(), dy.options());
  token_sum_into(rows, std::nullopt, token_rows, dx);
  if (down_grad)
    cuda::plain::outer(dy_rows, static_cast<int>(experts.model_width()),
                       plain_rows(activated, experts.row_assignment, experts.top_k, false),
                       static_cast<int>(width), plain_places(experts.expert_offset, experts.place_of_expert),
                       plain_gradient(*down_grad, experts.place_of_expert, experts.num_experts(), accumulate),
                       accumulate, current_stream());
  return {dx, dgate_weights, dhidden, activated};
}

InputGradients expert_ffn_backward_input_cuda(
    const at::Tensor& dy, const at::Tensor& hidden, const at::Tensor& gate_weights,
    const at::Tensor& row_assignment, const at::Tensor& expert_offset, const at::Tensor& token_rows,
    const at::Tensor& gate_up, const at::Tensor& down, const OptionalTensor& gate_up_bias,
    const OptionalTensor& down_bias, const OptionalTensor& place_of_expert, int64_t activation, double alpha,
    double limit, const OptionalTensor& down_grad, bool accumulate) {
  const c10::cuda::CUDAGuard guard(dy.device());
  const CudaExperts experts{
      row_assignment, expert_offset, dy.size(0), token_rows.size(1), gate_up,
      down,           gate_up_bias,  down_bias,  place_of_expert,    activation_of(activation, alpha, limit)};
  return experts.fast()
             ? input_fast(experts, dy, hidden, gate_weights, token_rows, gradient_of(down_grad, accumulate))
             : input_plainly(experts, dy, hidden, gate_weights, token_rows, down_grad, accumulate);
}

// The plan and operands of the weights' gradients.
struct WeightGradients {
  const at::Tensor &dy, &x, &dhidden, &activated, &gate_weights, &row_assignment, &expert_offset;
  const OptionalTensor& place_of_expert;
  int64_t num_places, top_k;
  const at::Tensor& gate_up_grad;
  const OptionalTensor &down_grad, &gate_up_bias_grad, &down_bias_grad;
  bool accumulate;

  int64_t num_experts() const { return expert_offset.size(0) - 1; }
  int64_t hidden_width() const { return dhidden.size(1); }
  int64_t expert_width() const { return activated.size(1); }
};

void weights_fast(const WeightGradients& of) {
  // The widths of hidden and activated tell a gated activation from another; which one does not matter here.
  const bool gated = of.hidden_width() != of.expert_width();
  const auto type = data_type_of(of.x.scalar_type());
  const cuda::ExpertLayer layer = {
      .family = cuda::default_family(type),
      .shape = {static_cast<int>(of.x.size(0)), static_cast<int>(of.top_k),
                static_cast<int>(of.num_experts()), static_cast<int>(of.num_places),
                static_cast<int>(of.x.size(1)), static_cast<int>(of.expert_width()),
                static_cast<int>(of.row_assignment.size(0)), type},
      .plan = {integers(of.row_assignment), integers(of.expert_offset), integers(of.place_of_expert), {}},
      .token_rows = nullptr,
      .activation = {gated ? cuda::ActivationKind::kSwiGlu : cuda::ActivationKind::kNone},
      .gate_up = {},
      .down = {},
      .gate_up_bias = {},
      .down_bias = {}};
  const cuda::ExpertLayerBackwardWeight backward = {
      .dy = of.dy.const_data_ptr(),
      .dy_stride = of.dy.size(1),
      .x = of.x.const_data_ptr(),
      .x_stride = of.x.size(1),
      .gate_weights = of.gate_weights.const_data_ptr<float>(),
      .dhidden = of.dhidden.const_data_ptr(),
      .weighted = of.activated.const_data_ptr(),
      .gate_up = gradient_of(of.gate_up_grad, of.accumulate),
      .down = gradient_of(of.down_grad, of.accumulate),
      .gate_up_bias = gradient_of(of.gate_up_bias_grad, of.accumulate),
      .down_bias = gradient_of(of.down_bias_grad, of.accumulate),
  };
  const at::Tensor workspace = scratch(cuda::expert_layer_backward_weight_workspace_bytes(layer), of.x);
  cuda::expert_layer_backward_weight(layer, backward, workspace.mutable_data_ptr(), current_stream());
}

void weights_plainly(const WeightGradients& of) {
  const auto places = plain_places(of.expert_offset, of.place_of_expert);
  const auto rows = [&](const at::Tensor& data, bool by_token) {
    return plain_rows(data, of.row_assignment, of.top_k, by_token);
  };
  const auto width = [](const at::Tensor& tensor) { return static_cast<int>(tensor.size(1)); };
  const auto out = [&](const at::Tensor& gradient) {
    return plain_gradient(gradient, of.place_of_expert, of.num_experts(), of.accumulate);
  };
  const auto stream = current_stream();
  if (of.down_grad)
    cuda::plain::outer(rows(of.dy, true), width(of.dy), rows(of.activated, false), width(of.activated),
                       places, out(*of.down_grad), of.accumulate, stream);
  cuda::plain::outer(rows(of.dhidden, false), width(of.dhidden), rows(of.x, true), width(of.x), places,
                     out(of.gate_up_grad), of.accumulate, stream);
  if (of.gate_up_bias_grad) {
    cuda::plain::column_sums(rows(of.dhidden, false), width(of.dhidden), nullptr, integers(of.row_assignment),
                             places, out(*of.gate_up_bias_grad), of.accumulate, stream);
  }
  if (of.down_bias_grad) {
    cuda::plain::column_sums(rows(of.dy, true), width(of.dy), of.gate_weights.const_data_ptr<float>(),
                             integers(of.row_assignment), places, out(*of.down_bias_grad), of.accumulate,
                             stream);
  }
}

void expert_ffn_backward_weight_cuda(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dhidden,
                                     const at::Tensor& activated, const at::Tensor& gate_weights,
                                     const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                                     const OptionalTensor& place_of_expert, int64_t num_places, int64_t top_k,
                                     const at::Tensor& gate_up_grad, const OptionalTensor& down_grad,
                                     const OptionalTensor& gate_up_bias_grad,
                                     const OptionalTensor& down_bias_grad, bool accumulate) {
  const c10::cuda::CUDAGuard guard(x.device());
  const WeightGradients of{dy,
                           x,
                           dhidden,
                           activated,
                           gate_weights,
                           row_assignment,
                           expert_offset,
                           place_of_expert,
                           num_places,
                           top_k,
                           gate_up_grad,
                           down_grad,
                           gate_up_bias_grad,
                           down_bias_grad,
                           accumulate};
  if (fast_kernels_take(x.scalar_type(), of.num_experts(), {x.size(1), of.expert_width()})) {
    weights_fast(of);
  } else {
    weights_plainly(of);
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CUDA, m) {
  m.impl("expert_ffn_backward_input", expert_ffn_backward_input_cuda);
  m.impl("expert_ffn_backward_weight", expert_ffn_backward_weight_cuda);
}

}  // namespace motley::ops
