// Derivatives of the single expert operators, in terms of each other.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "motley/ops/operators.h"
#include "motley/ops/single_backward.h"

namespace motley::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor or_undefined(const OptionalTensor& tensor) { return tensor.value_or(at::Tensor()); }

// inverse[index[i]] = i, -1 elsewhere; negative indices point nowhere.
at::Tensor inverse(const at::Tensor& index, int64_t size) {
  auto result = at::full({size + 1}, -1, index.options());
  const auto flat = index.flatten();
  result.scatter_(0, at::where(flat.lt(0), size, flat).to(at::kLong),
                  at::arange(flat.numel(), index.options()));
  return result.narrow(0, 0, size);
}

// token_rows [T, K] of a plan. Rows past expert_offset's last hold -1.
at::Tensor token_rows_of(const at::Tensor& row_assignment, int64_t num_tokens, int64_t top_k) {
  return inverse(row_assignment, num_tokens * top_k).view({num_tokens, top_k});
}

// Values by expert [E, ...] brought to the places [P, ...] that hold the experts.
at::Tensor by_place(const at::Tensor& by_expert, const at::Tensor& place_of_expert, int64_t num_places) {
  auto sizes = by_expert.sizes().vec();
  sizes[0] = num_places;
  auto result = at::zeros(sizes, by_expert.options());
  if (!place_of_expert.defined()) {
    result.narrow(0, 0, by_expert.size(0)).copy_(by_expert);
    return result;
  }
  const auto present = place_of_expert.ge(0).nonzero().flatten();
  return result.index_copy_(0, place_of_expert.index_select(0, present).to(at::kLong),
                            by_expert.index_select(0, present));
}

at::Tensor add_up_choices(const at::Tensor& rows, const at::Tensor& row_assignment, int64_t num_tokens,
                          int64_t top_k) {
  return token_sum_operator().call(rows, std::nullopt, token_rows_of(row_assignment, num_tokens, top_k),
                                   rows.scalar_type());
}

class ExpertMatmulNode : public torch::autograd::Function<ExpertMatmulNode> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const OptionalTensor& bias, const at::Tensor& row_assignment,
                            const at::Tensor& expert_offset, const OptionalTensor& place_of_expert,
                            int64_t top_k, bool by_token, bool transpose_weight) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward(
        {x, weight, or_undefined(bias), row_assignment, expert_offset, or_undefined(place_of_expert)});
    context->saved_data["top_k"] = top_k;
    context->saved_data["by_token"] = by_token;
    context->saved_data["transpose_weight"] = transpose_weight;
    return expert_matmul_operator().call(x, weight, bias, row_assignment, expert_offset, place_of_expert,
                                         top_k, by_token, transpose_weight);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_single_backward("expert_matmul");
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &bias = saved[2], &row_assignment = saved[3],
               &expert_offset = saved[4], &places = saved[5];
    const int64_t top_k = context->saved_data.at("top_k").toInt();
    const bool by_token = context->saved_data.at("by_token").toBool();
    const bool transpose_weight = context->saved_data.at("transpose_weight").toBool();
    const auto& dy = gradients[0];

    variable_list results(9);
    if (context->needs_input_grad(0)) {
      const auto dx =
          expert_matmul_operator().call(dy, weight, std::nullopt, row_assignment, expert_offset,
                                        optional(places), top_k, /*by_token=*/false, !transpose_weight);
      results[0] = by_token ? add_up_choices(dx, row_assignment, x.size(0), top_k) : dx;
    }
    if (context->needs_input_grad(1)) {
      const auto outer = expert_outer_operator().call(dy, x, row_assignment, expert_offset, top_k, by_token);
      results[1] = by_place(transpose_weight ? outer : outer.transpose(1, 2), places, weight.size(0));
    }
    if (bias.defined() && context->needs_input_grad(2)) {
      const auto sums = expert_sum_operator().call(dy, expert_offset);
      results[2] = by_place(sums, places, bias.size(0)).to(bias.scalar_type());
    }
    return results;
  }
};

// The expert of each row, E past the last row.
at::Tensor expert_of_row(const at::Tensor& expert_offset, int64_t max_rows) {
  const auto rows = at::arange(max_rows, expert_offset.options());
  return at::searchsorted(expert_offset.narrow(0, 1, expert_offset.size(0) - 1), rows, /*out_int32=*/false,
                          /*right=*/true);
}

class ExpertSumNode : public torch::autograd::Function<ExpertSumNode> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& y, const at::Tensor& expert_offset) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({expert_offset});
    context->saved_data["max_rows"] = y.size(0);
    context->saved_data["dtype"] = y.scalar_type();
    return expert_sum_operator().call(y, expert_offset);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_single_backward("expert_sum");
    const auto expert_offset = context->get_saved_variables()[0];
    const auto& dout = gradients[0];
    // One more expert of zeros takes the rows past the last.
    auto padded = at::zeros({dout.size(0) + 1, dout.size(1)}, dout.options());
    padded.narrow(0, 0, dout.size(0)).copy_(dout);
    const auto expert = expert_of_row(expert_offset, context->saved_data.at("max_rows").toInt());
    return {padded.index_select(0, expert).to(context->saved_data.at("dtype").toScalarType()), at::Tensor()};
  }
};

class ExpertOuterNode : public torch::autograd::Function<ExpertOuterNode> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& dy, const at::Tensor& x,
                            const at::Tensor& row_assignment, const at::Tensor& expert_offset, int64_t top_k,
                            bool x_by_token) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({dy, x, row_assignment, expert_offset});
    context->saved_data["top_k"] = top_k;
    context->saved_data["x_by_token"] = x_by_token;
    return expert_outer_operator().call(dy, x, row_assignment, expert_offset, top_k, x_by_token);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_single_backward("expert_outer");
    const auto saved = context->get_saved_variables();
    const auto &dy = saved[0], &x = saved[1], &row_assignment = saved[2], &expert_offset = saved[3];
    const int64_t top_k = context->saved_data.at("top_k").toInt();
    const bool x_by_token = context->saved_data.at("x_by_token").toBool();
    const auto dout = gradients[0].contiguous();  // [E, M, J]: the weights of two products

    variable_list results(6);
    if (context->needs_input_grad(0)) {
      results[0] = expert_matmul_operator().call(x, dout, std::nullopt, row_assignment, expert_offset,
                                                 std::nullopt, top_k, x_by_token, /*transpose_weight=*/true);
    }
    if (context->needs_input_grad(1)) {
      const auto dx = expert_matmul_operator().call(dy, dout, std::nullopt, row_assignment, expert_offset,
                                                    std::nullopt, top_k, /*by_token=*/false,
                                                    /*transpose_weight=*/false);
      results[1] = x_by_token ? add_up_choices(dx, row_assignment, x.size(0), top_k) : dx;
    }
    return results;
  }
};

class TokenSumNode : public torch::autograd::Function<TokenSumNode> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const OptionalTensor& gate_weights, const at::Tensor& token_rows,
                            at::ScalarType out_dtype) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({rows, or_undefined(gate_weights), token_rows});
    return token_sum_operator().call(rows, gate_weights, token_rows, out_dtype);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_single_backward("token_sum");
    const auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &gate_weights = saved[1], &token_rows = saved[2];
    const int64_t top_k = token_rows.size(1);
    const auto dy = gradients[0].to(at::kFloat);
    // The assignment of each row; rows that no token has get no gradient.
    const auto assignment = inverse(token_rows, rows.size(0));
    const auto used = assignment.ge(0).nonzero().flatten();
    const auto of_used = assignment.index_select(0, used).to(at::kLong);
    auto gathered = dy.index_select(0, of_used.floor_divide(top_k));

    variable_list results(4);
    if (gate_weights.defined() && context->needs_input_grad(1)) {
      auto dweights = at::zeros_like(gate_weights).flatten();
      dweights.index_copy_(0, of_used, gathered.mul(rows.index_select(0, used)).sum(-1));
      results[1] = dweights.view(gate_weights.sizes());
    }
    if (context->needs_input_grad(0)) {
      if (gate_weights.defined()) {
        gathered.mul_(gate_weights.flatten().index_select(0, of_used).unsqueeze(1));
      }
      results[0] =
          at::zeros(rows.sizes(), rows.options()).index_copy_(0, used, gathered.to(rows.scalar_type()));
    }
    return results;
  }
};

at::Tensor expert_matmul(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                         const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                         const OptionalTensor& place_of_expert, int64_t top_k, bool by_token,
                         bool transpose_weight) {
  return ExpertMatmulNode::apply(x, weight, optional(bias), row_assignment, expert_offset,
                                 optional(place_of_expert), top_k, by_token, transpose_weight);
}

at::Tensor expert_sum(const at::Tensor& y, const at::Tensor& expert_offset) {
  return ExpertSumNode::apply(y, expert_offset);
}

at::Tensor expert_outer(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& row_assignment,
                        const at::Tensor& expert_offset, int64_t top_k, bool x_by_token) {
  return ExpertOuterNode::apply(dy, x, row_assignment, expert_offset, top_k, x_by_token);
}

at::Tensor token_sum(const at::Tensor& rows, const OptionalTensor& gate_weights, const at::Tensor& token_rows,
                     at::ScalarType out_dtype) {
  return TokenSumNode::apply(rows, optional(gate_weights), token_rows, out_dtype);
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, Autograd, m) {
  m.impl("expert_matmul", TORCH_FN(expert_matmul));
  m.impl("expert_sum", TORCH_FN(expert_sum));
  m.impl("expert_outer", TORCH_FN(expert_outer));
  m.impl("token_sum", TORCH_FN(token_sum));
}

}  // namespace motley::ops
