// Checks of the expert operators, registered in front of every backend's kernel (BackendSelect is the
// last key before the backends'), so that C++, Python and autograd meet the same ones. They also make
// contiguous what may arrive expanded, strided or misaligned, so that kernels see one layout.
#include <torch/library.h>

#include "motley/ops/activation.h"
#include "motley/ops/checks.h"
#include "motley/ops/zero_expert_arguments.h"

namespace motley::ops {
namespace {

// The integers of a plan, contiguous and checked.
struct Plan {
  at::Tensor row_assignment, expert_offset;
  int64_t max_rows, num_experts;

  // num_tokens: -1 if the operator does not know.
  Plan(const ArgumentChecks& check, const at::Tensor& assignment, const at::Tensor& offset, int64_t top_k,
       int64_t num_tokens)
      : row_assignment(dense(assignment)), expert_offset(dense(offset)) {
    check.typed("row_assignment", row_assignment, at::kInt, {-1}, "[max_rows]");
    check.typed("expert_offset", expert_offset, at::kInt, {-1}, "[E + 1]");
    TORCH_CHECK(top_k >= 1, "[", check.op(), "] expected top_k of at least 1, got ", top_k);
    max_rows = row_assignment.size(0);
    check.offsets("expert_offset", expert_offset, max_rows);
    num_experts = expert_offset.size(0) - 1;
    if (row_assignment.is_cpu()) {
      const int64_t num_rows = expert_offset.const_data_ptr<int32_t>()[num_experts];
      const int64_t end = num_tokens < 0 ? int64_t{1} << 31 : num_tokens * top_k;
      check.integers("row_assignment", row_assignment.narrow(0, 0, num_rows), 0, end);
    }
  }
};

OptionalTensor checked_places(const ArgumentChecks& check, const OptionalTensor& place_of_expert,
                              int64_t num_experts, int64_t num_places) {
  auto places = dense_or_none(place_of_expert);
  if (places.has_value()) {
    check.typed("place_of_expert", *places, at::kInt, {num_experts}, "[E]");
    check.integers("place_of_expert", *places, -1, num_places);
  } else {
    TORCH_CHECK(num_places >= num_experts, "[", check.op(), "] expected weights of at least the plan's ",
                num_experts, " experts, got ", num_places, " (or give place_of_expert)");
  }
  return places;
}

OptionalTensor checked_bias(const ArgumentChecks& check, const char* name, const OptionalTensor& bias,
                            int64_t num_places, int64_t width, const char* shape) {
  auto values = dense_or_none(bias);
  if (values.has_value()) {
    check.values(name, *values, {num_places, width}, shape);
  }
  return values;
}

// Checks the weights of whole experts, and makes biases and places dense.
void check_weights(const ArgumentChecks& check, const at::Tensor& gate_up, const at::Tensor& down,
                   OptionalTensor& gate_up_bias, OptionalTensor& down_bias, OptionalTensor& place_of_expert,
                   int64_t num_experts, int64_t width, int64_t activation) {
  TORCH_CHECK(activation >= 0 && activation <= static_cast<int64_t>(ActivationKind::kSilu), "[", check.op(),
              "] expected activation from 0 to ", static_cast<int64_t>(ActivationKind::kSilu), ", got ",
              activation);
  check.expert_blocks("down", down, {-1, width, -1}, "[P, D, F]");
  const Activation kind{.kind = static_cast<ActivationKind>(activation)};
  const int64_t num_places = down.size(0);
  const int64_t hidden_rows = kind.hidden_rows(down.size(2));
  check.expert_blocks("gate_up", gate_up, {num_places, hidden_rows, width},
                      kind.gated() ? "[P, 2F, D]" : "[P, F, D]");
  gate_up_bias = checked_bias(check, "gate_up_bias", gate_up_bias, num_places, hidden_rows, "[P, G]");
  down_bias = checked_bias(check, "down_bias", down_bias, num_places, width, "[P, D]");
  place_of_expert = checked_places(check, place_of_expert, num_experts, num_places);
}

at::Tensor expert_matmul(c10::DispatchKeySet keys, const at::Tensor& x, const at::Tensor& weight,
                         const OptionalTensor& bias, const at::Tensor& row_assignment,
                         const at::Tensor& expert_offset, const OptionalTensor& place_of_expert,
                         int64_t top_k, bool by_token, bool transpose_weight) {
  const ArgumentChecks check("expert_matmul", "x", x);
  check.sizes("x", x, {-1, -1}, by_token ? "[T, in]" : "[max_rows, in]");
  const Plan plan(check, row_assignment, expert_offset, top_k, by_token ? x.size(0) : -1);
  if (!by_token) {
    check.sizes("x", x, {plan.max_rows, -1}, "[max_rows, in]");
  }
  const int64_t in = x.size(1);
  if (transpose_weight) {
    check.expert_blocks("weight", weight, {-1, -1, in}, "[P, out, in]");
  } else {
    check.expert_blocks("weight", weight, {-1, in, -1}, "[P, in, out]");
  }
  const int64_t out = weight.size(transpose_weight ? 1 : 2);
  const auto values = checked_bias(check, "bias", bias, weight.size(0), out, "[P, out]");
  const auto places = checked_places(check, place_of_expert, plan.num_experts, weight.size(0));
  return expert_matmul_operator().redispatch(backend(keys), dense(x), weight, values, plan.row_assignment,
                                             plan.expert_offset, places, top_k, by_token, transpose_weight);
}

at::Tensor expert_sum(c10::DispatchKeySet keys, const at::Tensor& y, const at::Tensor& expert_offset) {
  const ArgumentChecks check("expert_sum", "y", y);
  check.sizes("y", y, {-1, -1}, "[max_rows, D]");
  const auto offset = dense(expert_offset);
  check.typed("expert_offset", offset, at::kInt, {-1}, "[E + 1]");
  check.offsets("expert_offset", offset, y.size(0));
  return expert_sum_operator().redispatch(backend(keys), dense(y), offset);
}

at::Tensor expert_outer(c10::DispatchKeySet keys, const at::Tensor& dy, const at::Tensor& x,
                        const at::Tensor& row_assignment, const at::Tensor& expert_offset, int64_t top_k,
                        bool x_by_token) {
  const ArgumentChecks check("expert_outer", "x", x);
  check.sizes("x", x, {-1, -1}, x_by_token ? "[T, J]" : "[max_rows, J]");
  const Plan plan(check, row_assignment, expert_offset, top_k, x_by_token ? x.size(0) : -1);
  if (!x_by_token) {
    check.sizes("x", x, {plan.max_rows, -1}, "[max_rows, J]");
  }
  check.values("dy", dy, {plan.max_rows, -1}, "[max_rows, M]");
  return expert_outer_operator().redispatch(backend(keys), dense(dy), dense(x), plan.row_assignment,
                                            plan.expert_offset, top_k, x_by_token);
}

void expert_rows(c10::DispatchKeySet keys, const at::Tensor& x, const at::Tensor& row_assignment,
                 const at::Tensor& expert_offset, int64_t top_k, const at::Tensor& gate_up,
                 const at::Tensor& down, const OptionalTensor& gate_up_bias, const OptionalTensor& down_bias,
                 const OptionalTensor& place_of_expert, int64_t activation, double alpha, double limit,
                 const at::Tensor& rows, const OptionalTensor& hidden) {
  const ArgumentChecks check("expert_rows", "x", x);
  check.not_differentiable({x, gate_up, down});
  check.sizes("x", x, {-1, -1}, "[T, D]");
  const Plan plan(check, row_assignment, expert_offset, top_k, x.size(0));
  auto first_bias = gate_up_bias, second_bias = down_bias, places = place_of_expert;
  check_weights(check, gate_up, down, first_bias, second_bias, places, plan.num_experts, x.size(1),
                activation);
  check.values("rows", rows, {plan.max_rows, x.size(1)}, "[max_rows, D]");
  check.written("rows", rows);
  const auto kept = optional(hidden);
  if (kept.has_value()) {
    check.values("hidden", *kept, {plan.max_rows, gate_up.size(1)}, "[max_rows, G]");
    check.written("hidden", *kept);
  }
  expert_rows_operator().redispatch(backend(keys), dense(x), plan.row_assignment, plan.expert_offset, top_k,
                                    gate_up, down, first_bias, second_bias, places, activation, alpha, limit,
                                    rows, kept);
}

at::Tensor expert_ffn_forward(c10::DispatchKeySet keys, const at::Tensor& x, const at::Tensor& gate_weights,
                              const OptionalTensor& row_assignment, const OptionalTensor& expert_offset,
                              const OptionalTensor& token_rows, const at::Tensor& gate_up,
                              const at::Tensor& down, const OptionalTensor& gate_up_bias,
                              const OptionalTensor& down_bias, const OptionalTensor& place_of_expert,
                              int64_t activation, double alpha, double limit, const OptionalTensor& slots,
                              int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
                              const OptionalTensor& constant_gate, at::ScalarType out_dtype,
                              const OptionalTensor& hidden) {
  const ArgumentChecks check("expert_ffn", "x", x);
  check.not_differentiable({x, gate_weights, gate_up, down, constant.value_or(at::Tensor()),
                            constant_gate.value_or(at::Tensor())});
  check.sizes("x", x, {-1, -1}, "[T, D]");
  const bool planned = row_assignment && expert_offset && token_rows;
  TORCH_CHECK(planned || slots, "[expert_ffn] expected a routing plan or slots, got neither");
  TORCH_CHECK(slots || kinds.empty(), "[expert_ffn] expected slots for ", kinds.size(),
              " zero-computation experts, got none");
  auto choices = slots, vectors = constant, gates = constant_gate;
  if (slots) {
    const ZeroExpertArguments args(check, x, *slots, gate_weights, num_experts, kinds, constant,
                                   constant_gate,
                                   /*tokens_dtype=*/true);
    choices = args.slots, vectors = args.constant, gates = args.constant_gate;
  }
  OptionalTensor assignment, offset, integers;
  int64_t max_rows = slots ? slots->numel() : 0;
  if (planned) {
    integers = dense(*token_rows);
    check.typed("token_rows", *integers, at::kInt, {x.size(0), -1}, "[T, K]");
    const Plan plan(check, *row_assignment, *expert_offset, integers->size(1), x.size(0));
    TORCH_CHECK(plan.num_experts == num_experts, "[expert_ffn] expected a plan of num_experts, ", num_experts,
                ", got one of ", plan.num_experts);
    assignment = plan.row_assignment, offset = plan.expert_offset, max_rows = plan.max_rows;
  }
  check.typed("gate_weights", gate_weights, at::kFloat, (planned ? integers : choices)->sizes(), "[T, K]");
  auto first_bias = gate_up_bias, second_bias = down_bias, places = place_of_expert;
  check_weights(check, gate_up, down, first_bias, second_bias, places, num_experts, x.size(1), activation);
  check.output_dtype(out_dtype);
  const auto kept = optional(hidden);
  if (kept.has_value()) {
    check.values("hidden", *kept, {max_rows, gate_up.size(1)}, "[max_rows, G]");
    check.written("hidden", *kept);
  }
  return expert_ffn_forward_operator().redispatch(backend(keys), dense(x), dense(gate_weights), assignment,
                                                  offset, integers, gate_up, down, first_bias, second_bias,
                                                  places, activation, alpha, limit, choices, num_experts,
                                                  kinds, vectors, gates, out_dtype, kept);
}

at::Tensor token_sum(c10::DispatchKeySet keys, const at::Tensor& rows, const OptionalTensor& gate_weights,
                     const at::Tensor& token_rows, at::ScalarType out_dtype) {
  const ArgumentChecks check("token_sum", "rows", rows);
  check.sizes("rows", rows, {-1, -1}, "[max_rows, D]");
  const auto integers = dense(token_rows);
  check.typed("token_rows", integers, at::kInt, {-1, -1}, "[T, K]");
  check.integers("token_rows", integers, -1, rows.size(0));
  const auto weights = dense_or_none(gate_weights);
  if (weights.has_value()) {
    check.typed("gate_weights", *weights, at::kFloat, integers.sizes(), "[T, K]");
  }
  check.output_dtype(out_dtype);
  return token_sum_operator().redispatch(backend(keys), dense(rows), weights, integers, out_dtype);
}

// A gradient that is written, in the type of the weights or fp32.
void check_gradient(const ArgumentChecks& check, const char* name, const at::Tensor& gradient,
                    at::IntArrayRef sizes, const char* shape) {
  check.sizes(name, gradient, sizes, shape);
  const auto found = gradient.scalar_type();
  TORCH_CHECK(found == at::kFloat || found == check.dtype(), "[", check.op(), "] expected ", name,
              " of dtype Float or that of the weights, ", check.dtype(), ", got ", found);
  check.written(name, gradient);
}

OptionalTensor checked_gradient(const ArgumentChecks& check, const char* name, const OptionalTensor& gradient,
                                at::IntArrayRef sizes, const char* shape) {
  const auto wanted = optional(gradient);
  if (wanted.has_value()) {
    check_gradient(check, name, *wanted, sizes, shape);
  }
  return wanted;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> expert_ffn_backward_input(
    c10::DispatchKeySet keys, const at::Tensor& dy, const at::Tensor& hidden, const at::Tensor& gate_weights,
    const at::Tensor& row_assignment, const at::Tensor& expert_offset, const at::Tensor& token_rows,
    const at::Tensor& gate_up, const at::Tensor& down, const OptionalTensor& gate_up_bias,
    const OptionalTensor& down_bias, const OptionalTensor& place_of_expert, int64_t activation, double alpha,
    double limit, const OptionalTensor& down_grad, bool accumulate) {
  const ArgumentChecks check("expert_ffn_backward_input", "hidden", hidden);
  check.not_differentiable({dy, hidden, gate_weights, gate_up, down});
  check.sizes("dy", dy, {-1, -1}, "[T, D]");
  const auto integers = dense(token_rows);
  check.typed("token_rows", integers, at::kInt, {dy.size(0), -1}, "[T, K]");
  const Plan plan(check, row_assignment, expert_offset, integers.size(1), dy.size(0));
  check.integers("token_rows", integers, -1, plan.max_rows);
  check.typed("gate_weights", gate_weights, at::kFloat, integers.sizes(), "[T, K]");
  auto first_bias = gate_up_bias, second_bias = down_bias, places = place_of_expert;
  check_weights(check, gate_up, down, first_bias, second_bias, places, plan.num_experts, dy.size(1),
                activation);
  check.values("hidden", hidden, {plan.max_rows, gate_up.size(1)}, "[max_rows, G]");
  const auto gradient = checked_gradient(check, "down_grad", down_grad, down.sizes(), "[P, D, F]");
  TORCH_CHECK(gradient.has_value() || !accumulate, "[", check.op(),
              "] expected down_grad to accumulate into, got none");
  return expert_ffn_backward_input_operator().redispatch(
      backend(keys), dense(dy.to(check.dtype())), dense(hidden), dense(gate_weights), plan.row_assignment,
      plan.expert_offset, integers, gate_up, down, first_bias, second_bias, places, activation, alpha, limit,
      gradient, accumulate);
}

void expert_ffn_backward_weight(c10::DispatchKeySet keys, const at::Tensor& dy, const at::Tensor& x,
                                const at::Tensor& dhidden, const at::Tensor& activated,
                                const at::Tensor& gate_weights, const at::Tensor& row_assignment,
                                const at::Tensor& expert_offset, const OptionalTensor& place_of_expert,
                                int64_t num_places, int64_t top_k, const at::Tensor& gate_up_grad,
                                const OptionalTensor& down_grad, const OptionalTensor& gate_up_bias_grad,
                                const OptionalTensor& down_bias_grad, bool accumulate) {
  const ArgumentChecks check("expert_ffn_backward_weight", "x", x);
  check.not_differentiable({dy, x, dhidden, activated, gate_weights});
  check.sizes("x", x, {-1, -1}, "[T, D]");
  check.sizes("dy", dy, x.sizes(), "[T, D]");
  const int64_t width = x.size(1);
  const Plan plan(check, row_assignment, expert_offset, top_k, x.size(0));
  check.typed("gate_weights", gate_weights, at::kFloat, {x.size(0), top_k}, "[T, K]");
  check.values("dhidden", dhidden, {plan.max_rows, -1}, "[max_rows, G]");
  check.values("activated", activated, {plan.max_rows, -1}, "[max_rows, F]");
  const int64_t hidden_width = dhidden.size(1), expert_width = activated.size(1);
  TORCH_CHECK(hidden_width == expert_width || hidden_width == 2 * expert_width, "[", check.op(),
              "] expected dhidden [max_rows, G] with G = F or 2 F and F = ", expert_width,
              " of activated, got G = ", hidden_width);
  check_gradient(check, "gate_up_grad", gate_up_grad, {num_places, hidden_width, width}, "[P, G, D]");
  const auto down =
      checked_gradient(check, "down_grad", down_grad, {num_places, width, expert_width}, "[P, D, F]");
  const auto first_bias =
      checked_gradient(check, "gate_up_bias_grad", gate_up_bias_grad, {num_places, hidden_width}, "[P, G]");
  const auto second_bias =
      checked_gradient(check, "down_bias_grad", down_bias_grad, {num_places, width}, "[P, D]");
  expert_ffn_backward_weight_operator().redispatch(
      backend(keys), dense(dy.to(check.dtype())), dense(x), dense(dhidden), dense(activated),
      dense(gate_weights), plan.row_assignment, plan.expert_offset,
      checked_places(check, place_of_expert, plan.num_experts, num_places), num_places, top_k, gate_up_grad,
      down, first_bias, second_bias, accumulate);
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, BackendSelect, m) {
  m.impl("expert_matmul", TORCH_FN(expert_matmul));
  m.impl("expert_sum", TORCH_FN(expert_sum));
  m.impl("expert_outer", TORCH_FN(expert_outer));
  m.impl("expert_rows", TORCH_FN(expert_rows));
  m.impl("expert_ffn_forward", TORCH_FN(expert_ffn_forward));
  m.impl("token_sum", TORCH_FN(token_sum));
  m.impl("expert_ffn_backward_input", TORCH_FN(expert_ffn_backward_input));
  m.impl("expert_ffn_backward_weight", TORCH_FN(expert_ffn_backward_weight));
}

// These have no derivative and say so above; without this every call would take the boxed fallback.
TORCH_LIBRARY_IMPL(motley, Autograd, m) {
  m.impl("expert_rows", torch::CppFunction::makeFallthrough());
  m.impl("expert_ffn_forward", torch::CppFunction::makeFallthrough());
  m.impl("expert_ffn_backward_input", torch::CppFunction::makeFallthrough());
  m.impl("expert_ffn_backward_weight", torch::CppFunction::makeFallthrough());
}

}  // namespace motley::ops
