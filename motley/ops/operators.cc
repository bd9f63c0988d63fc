#include "motley/ops/operators.h"

#include <torch/library.h>

// The one list of operators. Backends add kernels with TORCH_LIBRARY_IMPL(motley, CPU, m) and the like.
TORCH_LIBRARY(motley, m) {
  m.def(
      "expert_matmul(Tensor x, Tensor weight, Tensor? bias, Tensor row_assignment, Tensor expert_offset, "
      "Tensor? place_of_expert, int top_k, bool by_token, bool transpose_weight) -> Tensor");
  m.def("expert_sum(Tensor y, Tensor expert_offset) -> Tensor");
  m.def(
      "expert_outer(Tensor dy, Tensor x, Tensor row_assignment, Tensor expert_offset, int top_k, "
      "bool x_by_token) -> Tensor");
  m.def(
      "expert_rows(Tensor x, Tensor row_assignment, Tensor expert_offset, int top_k, Tensor gate_up, Tensor "
      "down, "
      "Tensor? gate_up_bias, Tensor? down_bias, Tensor? place_of_expert, int activation, float alpha, "
      "float limit, Tensor(a!) rows, Tensor(b!)? hidden) -> ()");
  m.def(
      "expert_ffn_forward(Tensor x, Tensor gate_weights, Tensor? row_assignment, Tensor? expert_offset, "
      "Tensor? token_rows, Tensor gate_up, Tensor down, Tensor? gate_up_bias, Tensor? down_bias, "
      "Tensor? place_of_expert, int activation, float alpha, float limit, Tensor? slots, int num_experts, "
      "int[] kinds, Tensor? constant, Tensor? constant_gate, ScalarType out_dtype, Tensor(a!)? hidden) -> "
      "Tensor");
  m.def("token_sum(Tensor rows, Tensor? gate_weights, Tensor token_rows, ScalarType out_dtype) -> Tensor");
  m.def(
      "expert_ffn_backward_input(Tensor dy, Tensor hidden, Tensor gate_weights, Tensor row_assignment, "
      "Tensor expert_offset, Tensor token_rows, Tensor gate_up, Tensor down, Tensor? gate_up_bias, "
      "Tensor? down_bias, Tensor? place_of_expert, int activation, float alpha, float limit, "
      "Tensor(a!)? down_grad, bool accumulate) -> "
      "(Tensor dx, Tensor dgate_weights, Tensor dhidden, Tensor activated)");
  m.def(
      "expert_ffn_backward_weight(Tensor dy, Tensor x, Tensor dhidden, Tensor activated, Tensor "
      "gate_weights, "
      "Tensor row_assignment, Tensor expert_offset, Tensor? place_of_expert, int num_places, int top_k, "
      "Tensor(a!) gate_up_grad, Tensor(b!)? down_grad, Tensor(c!)? gate_up_bias_grad, "
      "Tensor(d!)? down_bias_grad, bool accumulate) -> ()");
  // All of expert_ffn_*, for callers outside C++; expert_ffn.cc composes it.
  m.def(
      "expert_ffn(Tensor x, Tensor gate_weights, Tensor row_assignment, Tensor expert_offset, Tensor "
      "token_rows, "
      "Tensor gate_up, Tensor down, Tensor? gate_up_bias, Tensor? down_bias, Tensor? place_of_expert, "
      "int activation, float alpha, float limit, ScalarType? out_dtype=None) -> Tensor");
  m.def(
      "routing_plan(Tensor slots, int num_experts) -> "
      "(Tensor row_assignment, Tensor expert_offset, Tensor token_rows)");
  m.def(
      "zero_experts(Tensor x, Tensor slots, Tensor weights, int num_experts, int[] kinds, Tensor? constant, "
      "Tensor? constant_gate) -> Tensor");
  m.def(
      "token_sum_with_zero_experts(Tensor rows, Tensor token_rows, Tensor x, Tensor slots, Tensor weights, "
      "int num_experts, int[] kinds, Tensor? constant, Tensor? constant_gate, ScalarType out_dtype) -> "
      "Tensor");
  m.def(
      "zero_experts_backward(Tensor dy, Tensor x, Tensor slots, Tensor weights, int num_experts, int[] "
      "kinds, "
      "Tensor? constant, Tensor? constant_gate) -> "
      "(Tensor dx, Tensor dweights, Tensor dconstant, Tensor dconstant_gate)");
  m.def(
      "gate_select(Tensor logits, Tensor? selection_bias, Tensor? token_mask, int top_k, bool standardise, "
      "float norm_std, int normalisation, int[] zero_slots, float scale) -> "
      "(Tensor slots, Tensor weights, Tensor scores, Tensor load)");
  m.def(
      "gate_select_backward(Tensor logits, Tensor slots, Tensor? dweights, Tensor? dscores, int top_k, "
      "bool standardise, float norm_std, int normalisation, int[] zero_slots, float scale) -> Tensor");
  m.def("gate_logits(Tensor x, Tensor weight, Tensor? previous, Tensor? residual) -> Tensor");
}

namespace motley::ops {
namespace {

template <typename Signature>
Handle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace

const Handle<ExpertMatmul>& expert_matmul_operator() {
  static const auto handle = find<ExpertMatmul>("motley::expert_matmul");
  return handle;
}

const Handle<ExpertSum>& expert_sum_operator() {
  static const auto handle = find<ExpertSum>("motley::expert_sum");
  return handle;
}

const Handle<ExpertOuter>& expert_outer_operator() {
  static const auto handle = find<ExpertOuter>("motley::expert_outer");
  return handle;
}

const Handle<ExpertRows>& expert_rows_operator() {
  static const auto handle = find<ExpertRows>("motley::expert_rows");
  return handle;
}

const Handle<ExpertFfnWhole>& expert_ffn_forward_operator() {
  static const auto handle = find<ExpertFfnWhole>("motley::expert_ffn_forward");
  return handle;
}

const Handle<TokenSum>& token_sum_operator() {
  static const auto handle = find<TokenSum>("motley::token_sum");
  return handle;
}

const Handle<ExpertFfnBackwardInput>& expert_ffn_backward_input_operator() {
  static const auto handle = find<ExpertFfnBackwardInput>("motley::expert_ffn_backward_input");
  return handle;
}

const Handle<ExpertFfnBackwardWeight>& expert_ffn_backward_weight_operator() {
  static const auto handle = find<ExpertFfnBackwardWeight>("motley::expert_ffn_backward_weight");
  return handle;
}

const Handle<MakeRoutingPlan>& routing_plan_operator() {
  static const auto handle = find<MakeRoutingPlan>("motley::routing_plan");
  return handle;
}

const Handle<ZeroExpertsForward>& zero_experts_operator() {
  static const auto handle = find<ZeroExpertsForward>("motley::zero_experts");
  return handle;
}

const Handle<TokenSumWithZeroExperts>& token_sum_with_zero_experts_operator() {
  static const auto handle = find<TokenSumWithZeroExperts>("motley::token_sum_with_zero_experts");
  return handle;
}

const Handle<ZeroExpertsBackward>& zero_experts_backward_operator() {
  static const auto handle = find<ZeroExpertsBackward>("motley::zero_experts_backward");
  return handle;
}

const Handle<GateSelect>& gate_select_operator() {
  static const auto handle = find<GateSelect>("motley::gate_select");
  return handle;
}

const Handle<GateSelectBackward>& gate_select_backward_operator() {
  static const auto handle = find<GateSelectBackward>("motley::gate_select_backward");
  return handle;
}

const Handle<GateLogits>& gate_logits_operator() {
  static const auto handle = find<GateLogits>("motley::gate_logits");
  return handle;
}

}  // namespace motley::ops
