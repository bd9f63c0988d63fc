#include "motley/ops/zero_experts.h"

#include <torch/library.h>

#include <algorithm>

#include "motley/ops/checks.h"
#include "motley/ops/operators.h"

namespace motley {

int64_t ZeroExperts::num_constant() const { return std::ranges::count(kinds, ZeroExpertKind::kConstant); }

namespace ops {

at::Tensor zero_experts(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                        int64_t num_experts, const ZeroExperts& experts) {
  std::vector<int64_t> kinds(experts.kinds.size());
  std::ranges::transform(experts.kinds, kinds.begin(),
                         [](ZeroExpertKind kind) { return static_cast<int64_t>(kind); });
  const auto optional = [](const at::Tensor& tensor) {
    return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
  };
  return zero_experts_operator().call(x, slots, weights, num_experts, kinds, optional(experts.constant),
                                      optional(experts.constant_gate));
}

namespace {

c10::DispatchKeySet backend(c10::DispatchKeySet keys) {
  return keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, c10::DispatchKey::BackendSelect);
}

// Arguments that forward and backward share, in the form that kernels take.
struct Arguments {
  at::Tensor x, slots, weights;
  OptionalTensor constant, constant_gate;

  Arguments(const ArgumentChecks& check, const at::Tensor& tokens, const at::Tensor& chosen,
            const at::Tensor& choice_weights, int64_t num_experts, at::IntArrayRef kinds,
            const OptionalTensor& vectors, const OptionalTensor& gates) {
    check.sizes("x", tokens, {-1, -1}, "[T, D]");
    x = dense(tokens);
    check.typed("slots", chosen, at::kInt, {x.size(0), -1}, "[T, K]");
    slots = dense(chosen);
    check.typed("weights", choice_weights, at::kFloat, slots.sizes(), "[T, K]");
    weights = dense(choice_weights);
    const int64_t num_slots = num_experts + static_cast<int64_t>(kinds.size());
    TORCH_CHECK(num_experts >= 0, "[", check.op(), "] expected num_experts of at least 0, got ", num_experts);
    check.integers("slots", slots, -1, num_slots);
    for (const int64_t kind : kinds) {
      TORCH_CHECK(kind >= 0 && kind <= static_cast<int64_t>(ZeroExpertKind::kConstant), "[", check.op(),
                  "] expected kinds of 0 (zero), 1 (copy) or 2 (constant), got ", kind);
    }
    const int64_t num_constant = std::ranges::count(kinds, static_cast<int64_t>(ZeroExpertKind::kConstant));
    constant =
        parameter(check, "constant", vectors, num_constant, {num_constant, x.size(1)}, "[Z_constant, D]");
    constant_gate = parameter(check, "constant_gate", gates, num_constant, {num_constant, 2, x.size(1)},
                              "[Z_constant, 2, D]");
  }

  // Kernels take the parameters in fp32; they are small.
  static OptionalTensor parameter(const ArgumentChecks& check, const char* name, const OptionalTensor& given,
                                  int64_t num_constant, at::IntArrayRef sizes, const char* shape) {
    if (!given.has_value() || !given->defined()) {
      TORCH_CHECK(num_constant == 0, "[", check.op(), "] expected ", name, " ", shape, " for ", num_constant,
                  " constant experts, got none");
      return std::nullopt;
    }
    check.sizes(name, *given, sizes, shape);
    TORCH_CHECK(at::isFloatingType(given->scalar_type()), "[", check.op(), "] expected ", name,
                " of a floating dtype, got ", given->scalar_type());
    return dense(given->to(at::kFloat));
  }
};

at::Tensor check_forward(c10::DispatchKeySet keys, const at::Tensor& x, const at::Tensor& slots,
                         const at::Tensor& weights, int64_t num_experts, at::IntArrayRef kinds,
                         const OptionalTensor& constant, const OptionalTensor& constant_gate) {
  const ArgumentChecks check("zero_experts", "x", x);
  const Arguments args(check, x, slots, weights, num_experts, kinds, constant, constant_gate);
  return zero_experts_operator().redispatch(backend(keys), args.x, args.slots, args.weights, num_experts,
                                            kinds, args.constant, args.constant_gate);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> check_backward(
    c10::DispatchKeySet keys, const at::Tensor& dy, const at::Tensor& x, const at::Tensor& slots,
    const at::Tensor& weights, int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
    const OptionalTensor& constant_gate) {
  const ArgumentChecks check("zero_experts_backward", "x", x);
  check.not_differentiable({dy, x, weights});
  const Arguments args(check, x, slots, weights, num_experts, kinds, constant, constant_gate);
  check.sizes("dy", dy, x.sizes(), "[T, D]");
  return zero_experts_backward_operator().redispatch(backend(keys), dense(dy.to(at::kFloat)), args.x,
                                                     args.slots, args.weights, num_experts, kinds,
                                                     args.constant, args.constant_gate);
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, BackendSelect, m) {
  m.impl("zero_experts", TORCH_FN(check_forward));
  m.impl("zero_experts_backward", TORCH_FN(check_backward));
}
TORCH_LIBRARY_IMPL(motley, Autograd, m) {
  m.impl("zero_experts_backward", torch::CppFunction::makeFallthrough());
}

}  // namespace ops
}  // namespace motley
