#include "tests/support/reference.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <vector>

namespace motley::test {
namespace {

at::Tensor fp64(const at::Tensor& tensor) { return tensor.defined() ? tensor.to(at::kDouble) : tensor; }

at::Tensor integers(const std::vector<int32_t>& values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kInt));
}

int64_t place(const at::Tensor& place_of_expert, int64_t expert) {
  return place_of_expert.defined() ? place_of_expert[expert].item<int64_t>() : expert;
}

// The tokens (or rows) that an expert's rows take x from.
at::Tensor inputs_of(const RoutingPlan& plan, int64_t first, int64_t count, bool by_token) {
  if (by_token) {
    return plan.row_assignment.narrow(0, first, count).to(at::kLong).floor_divide(plan.top_k());
  }
  return at::arange(first, first + count);
}

struct Range {
  int64_t first, count;
};
Range rows_of(const RoutingPlan& plan, int64_t expert) {
  const auto first = plan.expert_offset[expert].item<int64_t>();
  return {first, plan.expert_offset[expert + 1].item<int64_t>() - first};
}

}  // namespace

RoutingPlan reference_plan(const at::Tensor& slots, int64_t num_experts) {
  std::vector<int32_t> assignments, offsets = {0};
  std::vector<int32_t> rows(slots.numel(), -1);
  const auto flat = slots.contiguous().flatten();
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    for (int32_t a = 0; a < flat.numel(); ++a) {
      if (flat.const_data_ptr<int32_t>()[a] == expert) {
        rows[a] = static_cast<int32_t>(assignments.size());
        assignments.push_back(a);
      }
    }
    offsets.push_back(static_cast<int32_t>(assignments.size()));
  }
  return {integers(assignments), integers(offsets), integers(rows).view(slots.sizes())};
}

ExpertWeights in_fp64(const ExpertWeights& weights) {
  auto result = weights;
  result.gate_up = fp64(weights.gate_up);
  result.down = fp64(weights.down);
  result.gate_up_bias = fp64(weights.gate_up_bias);
  result.down_bias = fp64(weights.down_bias);
  return result;
}

at::Tensor reference_activation(const at::Tensor& hidden, const Activation& activation) {
  const auto halves = activation.gated() ? hidden.chunk(2, -1) : std::vector<at::Tensor>{hidden, hidden};
  const auto &g = halves[0], &u = halves[1];
  switch (activation.kind) {
    case ActivationKind::kSwiGlu:
      return g * at::sigmoid(g) * u;
    case ActivationKind::kGeGlu:
      return at::gelu(g) * u;
    case ActivationKind::kClampedSwiGlu: {
      const auto gate = g.clamp_max(activation.limit);
      return gate * at::sigmoid(gate * activation.alpha) * (u.clamp(-activation.limit, activation.limit) + 1);
    }
    case ActivationKind::kGelu:
      return at::gelu(g);
    case ActivationKind::kRelu:
      return at::relu(g);
    case ActivationKind::kSilu:
      return g * at::sigmoid(g);
  }
  TORCH_INTERNAL_ASSERT(false, "unknown activation");
}

at::Tensor reference_expert_matmul(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                   const RoutingPlan& plan, const at::Tensor& place_of_expert, bool by_token,
                                   bool transpose_weight) {
  const auto w = transpose_weight ? fp64(weight).transpose(1, 2) : fp64(weight);  // [P, in, out]
  auto y = at::zeros({plan.max_rows(), w.size(2)}, at::kDouble);
  for (int64_t expert = 0; expert < plan.num_experts(); ++expert) {
    const auto p = place(place_of_expert, expert);
    const auto [first, count] = rows_of(plan, expert);
    if (p < 0 || count == 0) {
      continue;
    }
    auto part = fp64(x).index_select(0, inputs_of(plan, first, count, by_token)).mm(w[p]);
    if (bias.defined()) {
      part = part + fp64(bias)[p];
    }
    y = y.index_copy(0, at::arange(first, first + count), part);
  }
  return y;
}

at::Tensor reference_expert_sum(const at::Tensor& y, const RoutingPlan& plan) {
  std::vector<at::Tensor> sums;
  for (int64_t expert = 0; expert < plan.num_experts(); ++expert) {
    const auto [first, count] = rows_of(plan, expert);
    sums.push_back(fp64(y).narrow(0, first, count).sum(0));
  }
  return at::stack(sums);
}

at::Tensor reference_expert_outer(const at::Tensor& dy, const at::Tensor& x, const RoutingPlan& plan,
                                  bool x_by_token) {
  std::vector<at::Tensor> outers;
  for (int64_t expert = 0; expert < plan.num_experts(); ++expert) {
    const auto [first, count] = rows_of(plan, expert);
    const auto inputs = fp64(x).index_select(0, inputs_of(plan, first, count, x_by_token));
    outers.push_back(fp64(dy).narrow(0, first, count).t().mm(inputs));
  }
  return at::stack(outers);
}

at::Tensor reference_token_sum(const at::Tensor& rows, const at::Tensor& gate_weights,
                               const RoutingPlan& plan) {
  auto y = at::zeros({plan.num_tokens(), rows.size(1)}, at::kDouble);
  for (int64_t k = 0; k < plan.top_k(); ++k) {
    const auto row = plan.token_rows.select(1, k);
    const auto tokens = row.ge(0).nonzero().flatten();
    auto part = fp64(rows).index_select(0, row.index_select(0, tokens));
    if (gate_weights.defined()) {
      part = part * fp64(gate_weights).select(1, k).index_select(0, tokens).unsqueeze(1);
    }
    y = y.index_add(0, tokens, part);
  }
  return y;
}

at::Tensor reference_expert_ffn(const at::Tensor& x, const at::Tensor& gate_weights, const at::Tensor& slots,
                                const ExpertWeights& weights, int64_t num_experts) {
  const auto w = in_fp64(weights);
  auto y = at::zeros_like(fp64(x));
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    const auto p = place(w.place_of_expert, expert);
    const auto chosen = slots.eq(expert).nonzero();  // [n, 2] token, choice
    if (p < 0 || chosen.size(0) == 0) {
      continue;
    }
    const auto tokens = chosen.select(1, 0), choices = chosen.select(1, 1);
    auto hidden = fp64(x).index_select(0, tokens).mm(w.gate_up[p].t());
    if (w.gate_up_bias.defined()) {
      hidden = hidden + w.gate_up_bias[p];
    }
    auto out = reference_activation(hidden, w.activation).mm(w.down[p].t());
    if (w.down_bias.defined()) {
      out = out + w.down_bias[p];
    }
    y = y.index_add(0, tokens, out * fp64(gate_weights).index({tokens, choices}).unsqueeze(1));
  }
  return y;
}

at::Tensor reference_zero_experts(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                                  int64_t num_experts, const ZeroExperts& experts) {
  auto y = at::zeros_like(fp64(x));
  int64_t constant = 0;
  for (int64_t z = 0; z < experts.count(); ++z) {
    // The weight that each token gives this expert, [T, 1].
    const auto weight = at::where(slots.eq(num_experts + z), fp64(weights), 0.0).sum(1, true);
    switch (experts.kinds[z]) {
      case ZeroExpertKind::kZero:
        break;
      case ZeroExpertKind::kCopy:
        y = y + weight * fp64(x);
        break;
      case ZeroExpertKind::kConstant: {
        const auto a = at::softmax(fp64(x).mm(fp64(experts.constant_gate)[constant].t()), 1);  // [T, 2]
        y = y + weight * (a.narrow(1, 0, 1) * fp64(x) + a.narrow(1, 1, 1) * fp64(experts.constant)[constant]);
        ++constant;
        break;
      }
    }
  }
  return y;
}

}  // namespace motley::test
