#include "motley/ops/zero_experts.h"

#include <torch/library.h>

#include <algorithm>

#include "motley/ops/zero_expert_arguments.h"

namespace motley {

int64_t ZeroExperts::num_constant() const { return std::ranges::count(kinds, ZeroExpertKind::kConstant); }

bool ZeroExperts::give_anything() const {
  return std::ranges::any_of(kinds, [](ZeroExpertKind kind) { return kind != ZeroExpertKind::kZero; });
}

namespace ops {

at::Tensor zero_experts(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                        int64_t num_experts, const ZeroExperts& experts) {
  const ZeroExpertTensors given(experts);
  return zero_experts_operator().call(x, slots, weights, num_experts, given.kinds, given.constant,
                                      given.constant_gate);
}

at::Tensor token_sum_with_zero_experts(const at::Tensor& rows, const RoutingPlan& plan, const at::Tensor& x,
                                       const at::Tensor& slots, const at::Tensor& weights,
                                       const ZeroExperts& experts, at::ScalarType out_dtype) {
  const ZeroExpertTensors given(experts);
  return token_sum_with_zero_experts_operator().call(rows, plan.token_rows, x, slots, weights,
                                                     plan.num_experts(), given.kinds, given.constant,
                                                     given.constant_gate, out_dtype);
}

namespace {

at::Tensor check_forward(c10::DispatchKeySet keys, const at::Tensor& x, const at::Tensor& slots,
                         const at::Tensor& weights, int64_t num_experts, at::IntArrayRef kinds,
                         const OptionalTensor& constant, const OptionalTensor& constant_gate) {
  const ArgumentChecks check("zero_experts", "x", x);
  check.sizes("x", x, {-1, -1}, "[T, D]");
  const ZeroExpertArguments args(check, x, slots, weights, num_experts, kinds, constant, constant_gate,
                                 /*tokens_dtype=*/false);
  return zero_experts_operator().redispatch(backend(keys), dense(x), args.slots, args.weights, num_experts,
                                            kinds, args.constant, args.constant_gate);
}

at::Tensor check_token_sum(c10::DispatchKeySet keys, const at::Tensor& rows, const at::Tensor& token_rows,
                           const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                           int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
                           const OptionalTensor& constant_gate, at::ScalarType out_dtype) {
  const ArgumentChecks check("token_sum_with_zero_experts", "x", x);
  check.not_differentiable(
      {rows, x, weights, constant.value_or(at::Tensor()), constant_gate.value_or(at::Tensor())});
  check.sizes("x", x, {-1, -1}, "[T, D]");
  const ZeroExpertArguments args(check, x, slots, weights, num_experts, kinds, constant, constant_gate,
                                 /*tokens_dtype=*/true);
  check.values("rows", rows, {-1, x.size(1)}, "[max_rows, D]");
  const at::Tensor integers = dense(token_rows);
  check.typed("token_rows", integers, at::kInt, args.slots.sizes(), "[T, K]");
  check.integers("token_rows", integers, -1, rows.size(0));
  check.output_dtype(out_dtype);
  return token_sum_with_zero_experts_operator().redispatch(backend(keys), dense(rows), integers, dense(x),
                                                           args.slots, args.weights, num_experts, kinds,
                                                           args.constant, args.constant_gate, out_dtype);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> check_backward(
    c10::DispatchKeySet keys, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& slots,
    const at::Tensor& weights, int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
    const OptionalTensor& constant_gate) {
  const ArgumentChecks check("zero_experts_backward", "x", x);
  check.not_differentiable(
      {dy, x, weights, constant.value_or(at::Tensor()), constant_gate.value_or(at::Tensor())});
  check.sizes("x", x, {-1, -1}, "[T, D]");
  const ZeroExpertArguments args(check, x, slots, weights, num_experts, kinds, constant, constant_gate,
                                 /*tokens_dtype=*/false);
  check.sizes("dy", dy, x.sizes(), "[T, D]");
  const bool as_it_is = x.is_cuda() && dy.scalar_type() == x.scalar_type();
  return zero_experts_backward_operator().redispatch(backend(keys), dense(as_it_is ? dy : dy.to(at::kFloat)),
                                                     dense(x), args.slots, args.weights, num_experts, kinds,
                                                     args.constant, args.constant_gate);
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, BackendSelect, m) {
  m.impl("zero_experts", TORCH_FN(check_forward));
  m.impl("token_sum_with_zero_experts", TORCH_FN(check_token_sum));
  m.impl("zero_experts_backward", TORCH_FN(check_backward));
}
TORCH_LIBRARY_IMPL(motley, Autograd, m) {
  m.impl("token_sum_with_zero_experts", torch::CppFunction::makeFallthrough());
  m.impl("zero_experts_backward", torch::CppFunction::makeFallthrough());
}

}  // namespace ops
}  // namespace motley
