#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "motley/nn/rotary.h"

namespace motley {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A rotation's transpose is its inverse, so backward needs neither x nor y.
class Rotary : public torch::autograd::Function<Rotary> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& positions,
                            const at::Tensor& table) {
    context->save_for_backward({positions, table});
    return rotary_forward(x, positions, table, /*inverse=*/false);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    return {rotary_forward(gradients[0], saved[0], saved[1], /*inverse=*/true), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rotary(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& table) {
  if (at::GradMode::is_enabled() && x.requires_grad()) return Rotary::apply(x, positions, table);
  return rotary_forward(x, positions, table, /*inverse=*/false);
}

}  // namespace motley
