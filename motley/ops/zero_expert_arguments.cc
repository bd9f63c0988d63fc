#include "motley/ops/zero_expert_arguments.h"

#include <algorithm>

namespace motley::ops {
namespace {

OptionalTensor parameter(const ArgumentChecks& check, const char* name, const OptionalTensor& given,
                         int64_t num_constant, at::IntArrayRef sizes, const char* shape) {
  if (!optional(given)) {
    TORCH_CHECK(num_constant == 0, "[", check.op(), "] expected ", name, " ", shape, " for ", num_constant,
                " constant experts, got none");
    return std::nullopt;
  }
  check.sizes(name, *given, sizes, shape);
  TORCH_CHECK(at::isFloatingType(given->scalar_type()), "[", check.op(), "] expected ", name,
              " of a floating dtype, got ", given->scalar_type());
  return given;
}

}  // namespace

ZeroExpertTensors::ZeroExpertTensors(const ZeroExperts& experts)
    : kinds(experts.kinds.size()),
      constant(optional(experts.constant)),
      constant_gate(optional(experts.constant_gate)) {
  std::ranges::transform(experts.kinds, kinds.begin(),
                         [](ZeroExpertKind kind) { return static_cast<int64_t>(kind); });
}

ZeroExpertArguments::ZeroExpertArguments(const ArgumentChecks& check, const at::Tensor& x,
                                         const at::Tensor& chosen, const at::Tensor& choice_weights,
                                         int64_t num_experts, at::IntArrayRef kinds,
                                         const OptionalTensor& vectors, const OptionalTensor& gates,
                                         bool tokens_dtype) {
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
  const auto has_tokens_dtype = [&](const OptionalTensor& tensor) {
    return !tensor.has_value() || tensor->scalar_type() == x.scalar_type();
  };
  const at::ScalarType dtype = tokens_dtype && has_tokens_dtype(constant) && has_tokens_dtype(constant_gate)
                                   ? x.scalar_type()
                                   : at::kFloat;
  for (OptionalTensor* tensor : {&constant, &constant_gate})
    if (tensor->has_value()) *tensor = dense((*tensor)->to(dtype));
}

}  // namespace motley::ops
