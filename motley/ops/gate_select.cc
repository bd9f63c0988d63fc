#include "motley/ops/gate_select.h"

#include <torch/csrc/autograd/custom_function.h>

#include "motley/ops/checks.h"
#include "motley/ops/operators.h"
#include "motley/ops/single_backward.h"

namespace motley::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kMaxSlots = 2048, kMaxChoices = 32;

using Selected = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Selected select(const at::Tensor& logits, const OptionalTensor& selection_bias,
                const OptionalTensor& token_mask, const GateRule& rule) {
  return gate_select_operator().call(logits, selection_bias, token_mask, rule.top_k, rule.standardise,
                                     rule.norm_std, static_cast<int64_t>(rule.normalisation), rule.zero_slots,
                                     rule.scale);
}

class GateSelectNode : public torch::autograd::Function<GateSelectNode> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& logits,
                               const OptionalTensor& selection_bias, const OptionalTensor& token_mask,
                               const GateRule& rule) {
    auto [slots, weights, scores, load] = select(logits, selection_bias, token_mask, rule);
    context->save_for_backward({logits, slots});
    context->mark_non_differentiable({slots, load});
    context->set_materialize_grads(false);
    context->saved_data["top_k"] = rule.top_k;
    context->saved_data["standardise"] = rule.standardise;
    context->saved_data["norm_std"] = rule.norm_std;
    context->saved_data["normalisation"] = static_cast<int64_t>(rule.normalisation);
    context->saved_data["zero_slots"] = rule.zero_slots;
    context->saved_data["scale"] = rule.scale;
    return {slots, weights, scores, load};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_single_backward("gate_select");
    const auto saved = context->get_saved_variables();
    const auto& data = context->saved_data;
    const auto gradient = [](const at::Tensor& tensor) {
      return tensor.defined() ? OptionalTensor(dense(tensor)) : std::nullopt;
    };
    return {
        gate_select_backward_operator().call(
            saved[0], saved[1], gradient(gradients[1]), gradient(gradients[2]), data.at("top_k").toInt(),
            data.at("standardise").toBool(), data.at("norm_std").toDouble(), data.at("normalisation").toInt(),
            data.at("zero_slots").toIntVector(), data.at("scale").toDouble()),
        at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool gate_select_takes(const at::Tensor& logits, int64_t top_k) {
  return logits.size(1) <= kMaxSlots && top_k <= kMaxChoices;
}

GateSelected gate_select(const at::Tensor& logits, const OptionalTensor& selection_bias,
                         const OptionalTensor& token_mask, const GateRule& rule) {
  const at::Tensor values = dense(logits);
  const auto bias = dense_or_none(selection_bias), mask = dense_or_none(token_mask);
  if (c10::GradMode::is_enabled() && logits.requires_grad()) {
    const auto out = GateSelectNode::apply(values, bias, mask, rule);
    return {out[0], out[1], out[2], out[3]};
  }
  auto [slots, weights, scores, load] = select(values, bias, mask, rule);
  return {slots, weights, scores, load};
}

at::Tensor gate_logits(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& previous,
                       const OptionalTensor& residual) {
  return gate_logits_operator().call(dense(x), dense(weight), dense_or_none(previous),
                                     dense_or_none(residual));
}

}  // namespace motley::ops
