#include "motley/ops/expert_ffn.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

#include "motley/ops/expert_ffn_autograd.h"
#include "motley/ops/expert_ffn_compute.h"
#include "motley/ops/tensor_weights.h"
#include "motley/ops/zero_expert_arguments.h"

namespace motley::ops {
namespace {

bool wants_grad(const at::Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); }

void check_unquantised(const char* op, const ExpertWeights& weights) {
  TORCH_CHECK(!weights.gate_up_scale.defined() && !weights.down_scale.defined(), "[", op,
              "] expected weights without scales, got quantised ones: no kernel takes them yet");
}

// Where an operator adds the gradient of `weight`.
at::Tensor gradient_like(const at::Tensor& weight, const at::Tensor& given, bool accumulate) {
  if (given.defined() || !weight.defined()) {
    return given;
  }
  return accumulate ? at::zeros(weight.sizes(), weight.options())
                    : at::empty(weight.sizes(), weight.options());
}

}  // namespace

at::Tensor expert_matmul(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                         const RoutingPlan& plan, const std::optional<at::Tensor>& place_of_expert,
                         bool by_token, bool transpose_weight) {
  return expert_matmul_operator().call(x, weight, bias, plan.row_assignment, plan.expert_offset,
                                       place_of_expert, plan.top_k(), by_token, transpose_weight);
}

at::Tensor expert_sum(const at::Tensor& y, const RoutingPlan& plan) {
  return expert_sum_operator().call(y, plan.expert_offset);
}

at::Tensor expert_outer(const at::Tensor& dy, const at::Tensor& x, const RoutingPlan& plan, bool x_by_token) {
  return expert_outer_operator().call(dy, x, plan.row_assignment, plan.expert_offset, plan.top_k(),
                                      x_by_token);
}

void expert_rows(const at::Tensor& x, const RoutingPlan& plan, const ExpertWeights& weights, at::Tensor rows,
                 at::Tensor hidden) {
  check_unquantised("expert_rows", weights);
  expert_rows_operator().call(x, plan.row_assignment, plan.expert_offset, plan.top_k(), weights.gate_up,
                              weights.down, optional(weights.gate_up_bias), optional(weights.down_bias),
                              optional(weights.place_of_expert),
                              static_cast<int64_t>(weights.activation.kind), weights.activation.alpha,
                              weights.activation.limit, rows, optional(hidden));
}

namespace {

at::Tensor call_forward(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                        int64_t num_experts, const ExpertWeights& weights, at::ScalarType out_dtype,
                        const at::Tensor& hidden, const at::Tensor& slots, const ZeroExperts& zero_experts) {
  check_unquantised("expert_ffn", weights);
  const ZeroExpertTensors zero(zero_experts);
  return expert_ffn_forward_operator().call(
      x, gate_weights, optional(plan.row_assignment), optional(plan.expert_offset), optional(plan.token_rows),
      weights.gate_up, weights.down, optional(weights.gate_up_bias), optional(weights.down_bias),
      optional(weights.place_of_expert), static_cast<int64_t>(weights.activation.kind),
      weights.activation.alpha, weights.activation.limit, optional(slots), num_experts, zero.kinds,
      zero.constant, zero.constant_gate, out_dtype, optional(hidden));
}

}  // namespace

at::Tensor expert_ffn_forward(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                              const ExpertWeights& weights, at::ScalarType out_dtype,
                              const at::Tensor& hidden, const ChosenZeroExperts& zero_experts) {
  return call_forward(x, gate_weights, plan, plan.num_experts(), weights, out_dtype, hidden,
                      zero_experts.slots, zero_experts.experts);
}

at::Tensor expert_ffn_from_slots(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& gate_weights,
                                 int64_t num_experts, const ExpertWeights& weights,
                                 const ZeroExperts& zero_experts, std::optional<at::ScalarType> out_dtype) {
  return call_forward(x, gate_weights, {}, num_experts, weights, out_dtype.value_or(x.scalar_type()), {},
                      slots, zero_experts);
}

at::Tensor token_sum(const at::Tensor& rows, const at::Tensor& gate_weights, const RoutingPlan& plan,
                     std::optional<at::ScalarType> out_dtype) {
  return token_sum_operator().call(rows, optional(gate_weights), plan.token_rows,
                                   out_dtype.value_or(rows.scalar_type()));
}

at::Tensor expert_ffn(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                      std::shared_ptr<WeightSource> source, std::optional<at::ScalarType> out_dtype) {
  return expert_ffn_with_zero_experts(x, {}, gate_weights, plan, std::move(source), {}, out_dtype);
}

at::Tensor expert_ffn_with_zero_experts(const at::Tensor& x, const at::Tensor& slots,
                                        const at::Tensor& gate_weights, const RoutingPlan& plan,
                                        std::shared_ptr<WeightSource> source, const ZeroExperts& zero_experts,
                                        std::optional<at::ScalarType> out_dtype) {
  TORCH_CHECK(source != nullptr, "[expert_ffn] expected a weight source, got none");
  const auto dtype = out_dtype.value_or(x.scalar_type());
  const bool any = wants_grad(x) || wants_grad(gate_weights) || source->requires_grad() ||
                   wants_grad(zero_experts.constant) || wants_grad(zero_experts.constant_gate);
  if (c10::GradMode::is_enabled() && any) {
    return expert_ffn_node(x, gate_weights, plan, std::move(source), dtype, {slots, zero_experts});
  }
  return compute_expert_ffn(x, gate_weights, plan, *source, dtype, /*keep_hidden=*/false,
                            {slots, zero_experts})
      .y;
}

at::Tensor expert_ffn(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                      const ExpertWeights& weights, std::optional<at::ScalarType> out_dtype) {
  check_unquantised("expert_ffn", weights);
  const auto dtype = out_dtype.value_or(x.scalar_type());
  const bool any = wants_grad(x) || wants_grad(gate_weights) || wants_grad(weights.gate_up) ||
                   wants_grad(weights.down) || wants_grad(weights.gate_up_bias) ||
                   wants_grad(weights.down_bias);
  if (c10::GradMode::is_enabled() && any) {
    return expert_ffn_node(x, gate_weights, plan, weights, dtype);
  }
  TensorWeights source(weights);
  return compute_expert_ffn(x, gate_weights, plan, source, dtype, /*keep_hidden=*/false).y;
}

namespace {

ExpertFfnInputGradients backward_input(const at::Tensor& dy, const at::Tensor& hidden,
                                       const at::Tensor& gate_weights, const RoutingPlan& plan,
                                       const ExpertWeights& weights, const OptionalTensor& down_grad,
                                       bool accumulate) {
  check_unquantised("expert_ffn_backward_input", weights);
  auto [dx, dgate_weights, dhidden, activated] = expert_ffn_backward_input_operator().call(
      dy, hidden, gate_weights, plan.row_assignment, plan.expert_offset, plan.token_rows, weights.gate_up,
      weights.down, optional(weights.gate_up_bias), optional(weights.down_bias),
      optional(weights.place_of_expert), static_cast<int64_t>(weights.activation.kind),
      weights.activation.alpha, weights.activation.limit, down_grad, accumulate);
  return {dx, dgate_weights, dhidden, activated};
}

void backward_weight(const at::Tensor& dy, const at::Tensor& x, const ExpertFfnInputGradients& input,
                     const at::Tensor& gate_weights, const RoutingPlan& plan, const ExpertWeights& weights,
                     const ExpertWeightGradients& out, const OptionalTensor& down_grad, bool accumulate) {
  expert_ffn_backward_weight_operator().call(
      dy, x, input.dhidden, input.activated, gate_weights, plan.row_assignment, plan.expert_offset,
      optional(weights.place_of_expert), weights.num_places(), plan.top_k(), out.gate_up, down_grad,
      optional(out.gate_up_bias), optional(out.down_bias), accumulate);
}

bool accumulates(const ExpertWeightGradients& into) {
  return into.gate_up.defined() || into.down.defined() || into.gate_up_bias.defined() ||
         into.down_bias.defined();
}

}  // namespace

ExpertFfnInputGradients expert_ffn_backward_input(const at::Tensor& dy, const at::Tensor& hidden,
                                                  const at::Tensor& gate_weights, const RoutingPlan& plan,
                                                  const ExpertWeights& weights) {
  return backward_input(dy, hidden, gate_weights, plan, weights, {}, false);
}

ExpertWeightGradients expert_ffn_backward_weight(const at::Tensor& dy, const at::Tensor& x,
                                                 const ExpertFfnInputGradients& input,
                                                 const at::Tensor& gate_weights, const RoutingPlan& plan,
                                                 const ExpertWeights& weights,
                                                 const ExpertWeightGradients& into) {
  const bool accumulate = accumulates(into);
  const ExpertWeightGradients out{
      .gate_up = gradient_like(weights.gate_up, into.gate_up, accumulate),
      .down = gradient_like(weights.down, into.down, accumulate),
      .gate_up_bias = gradient_like(weights.gate_up_bias, into.gate_up_bias, accumulate),
      .down_bias = gradient_like(weights.down_bias, into.down_bias, accumulate),
  };
  backward_weight(dy, x, input, gate_weights, plan, weights, out, out.down, accumulate);
  return out;
}

ExpertFfnBackward expert_ffn_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& hidden,
                                      const at::Tensor& gate_weights, const RoutingPlan& plan,
                                      const ExpertWeights& weights, const ExpertWeightGradients& into) {
  const bool accumulate = accumulates(into), down_first = dy.is_cuda();
  ExpertWeightGradients out;
  out.down = gradient_like(weights.down, into.down, accumulate);
  const auto input =
      backward_input(dy, hidden, gate_weights, plan, weights,
                     down_first ? OptionalTensor(out.down) : std::nullopt, down_first && accumulate);
  // Only now, when the scratch of the first half is free again.
  out.gate_up = gradient_like(weights.gate_up, into.gate_up, accumulate);
  out.gate_up_bias = gradient_like(weights.gate_up_bias, into.gate_up_bias, accumulate);
  out.down_bias = gradient_like(weights.down_bias, into.down_bias, accumulate);
  backward_weight(dy, x, input, gate_weights, plan, weights, out,
                  down_first ? std::nullopt : OptionalTensor(out.down), accumulate);
  return {input, out};
}

namespace {

at::Tensor expert_ffn_operator(const at::Tensor& x, const at::Tensor& gate_weights,
                               const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                               const at::Tensor& token_rows, const at::Tensor& gate_up,
                               const at::Tensor& down, const OptionalTensor& gate_up_bias,
                               const OptionalTensor& down_bias, const OptionalTensor& place_of_expert,
                               int64_t activation, double alpha, double limit,
                               std::optional<at::ScalarType> out_dtype) {
  ExpertWeights weights;
  weights.gate_up = gate_up;
  weights.down = down;
  weights.gate_up_bias = gate_up_bias.value_or(at::Tensor());
  weights.down_bias = down_bias.value_or(at::Tensor());
  weights.place_of_expert = place_of_expert.value_or(at::Tensor());
  weights.activation = {.kind = static_cast<ActivationKind>(activation), .alpha = alpha, .limit = limit};
  return expert_ffn(x, gate_weights, {row_assignment, expert_offset, token_rows}, weights, out_dtype);
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CompositeImplicitAutograd, m) {
  m.impl("expert_ffn", TORCH_FN(expert_ffn_operator));
}

}  // namespace motley::ops
