#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "motley/ops/operators.h"
#include "motley/ops/single_backward.h"

namespace motley::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class ZeroExpertsNode : public torch::autograd::Function<ZeroExpertsNode> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& slots,
                            const at::Tensor& weights, int64_t num_experts, at::IntArrayRef kinds,
                            const OptionalTensor& constant, const OptionalTensor& constant_gate) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward(
        {x, slots, weights, constant.value_or(at::Tensor()), constant_gate.value_or(at::Tensor())});
    context->saved_data["num_experts"] = num_experts;
    context->saved_data["kinds"] = kinds.vec();
    return zero_experts_operator().call(x, slots, weights, num_experts, kinds, constant, constant_gate);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_single_backward("zero_experts");
    const auto saved = context->get_saved_variables();
    const auto &constant = saved[3], &constant_gate = saved[4];
    auto [dx, dweights, dconstant, dconstant_gate] = zero_experts_backward_operator().call(
        gradients[0], saved[0], saved[1], saved[2], context->saved_data.at("num_experts").toInt(),
        context->saved_data.at("kinds").toIntVector(), optional(constant), optional(constant_gate));
    variable_list results(7);
    results[0] = dx;
    results[2] = dweights;
    if (constant.defined()) {
      results[5] = dconstant.to(constant.scalar_type());
    }
    if (constant_gate.defined()) {
      results[6] = dconstant_gate.to(constant_gate.scalar_type());
    }
    return results;
  }
};

at::Tensor zero_experts(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                        int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
                        const OptionalTensor& constant_gate) {
  return ZeroExpertsNode::apply(x, slots, weights, num_experts, kinds, optional(constant),
                                optional(constant_gate));
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, Autograd, m) { m.impl("zero_experts", TORCH_FN(zero_experts)); }

}  // namespace motley::ops
