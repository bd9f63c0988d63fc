#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "motley/nn/causal_attention.h"

namespace motley {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class CausalAttention : public torch::autograd::Function<CausalAttention> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const std::vector<int64_t>& offsets) {
    auto [out, lse] = causal_attention_forward(q, k, v, offsets);
    context->save_for_backward({q, k, v, out, lse});
    context->saved_data["offsets"] = offsets;
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    auto [dq, dk, dv] = causal_attention_backward(gradients[0], saved[0], saved[1], saved[2], saved[3],
                                                  saved[4], context->saved_data["offsets"].toIntVector());
    return {dq, dk, dv, at::Tensor()};
  }
};

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<int64_t>& offsets) {
  if (!q.is_cpu()) return causal_attention_gpu(q, k, v, offsets);
  const bool gradients = q.requires_grad() || k.requires_grad() || v.requires_grad();
  if (at::GradMode::is_enabled() && gradients) return CausalAttention::apply(q, k, v, offsets);
  return std::get<0>(causal_attention_forward(q, k, v, offsets));
}

}  // namespace motley
