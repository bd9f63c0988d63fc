#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_rms_norm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "motley/nn/rms_norm.h"
#include "motley/ops/part.h"

namespace motley {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    auto [y, inverse_rms] = rms_norm_forward(x, weight, eps);
    context->save_for_backward({x, weight, inverse_rms});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    auto [dx, dweight] = rms_norm_backward(gradients[0], saved[0], saved[1], saved[2]);
    return {dx, dweight, at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const Part part("norms");
  if (!x.is_cpu()) return std::get<0>(at::_fused_rms_norm(x, weight.sizes(), weight, eps));
  if (at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad())) {
    return RmsNorm::apply(x, weight, eps);
  }
  return std::get<0>(rms_norm_forward(x, weight, eps));
}

}  // namespace motley
