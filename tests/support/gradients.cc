#include "tests/support/gradients.h"

#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

namespace motley::test {

at::Tensor leaf(const at::Tensor& values) { return values.detach().clone().set_requires_grad(true); }

Tensors leaves(const Tensors& tensors, std::optional<at::ScalarType> dtype) {
  Tensors result;
  for (const auto& tensor : tensors) {
    result.push_back(leaf(dtype.has_value() ? tensor.to(*dtype) : tensor));
  }
  return result;
}

Tensors gradients(const at::Tensor& output, const Tensors& inputs, const at::Tensor& weight,
                  bool create_graph) {
  if (!output.requires_grad()) {
    return Tensors(inputs.size());
  }
  return torch::autograd::grad({output}, inputs, {weight}, /*retain_graph=*/create_graph, create_graph,
                               /*allow_unused=*/true);
}

Tensors finite_differences(const std::function<double(const Tensors&)>& f, const Tensors& inputs) {
  constexpr double kStep = 1e-5;
  const c10::NoGradGuard no_grad;
  Tensors at_point, result;
  for (const auto& input : inputs) {
    TORCH_CHECK(input.scalar_type() == at::kDouble, "expected fp64, got ", input.scalar_type());
    at_point.push_back(input.detach().clone());
  }
  for (const auto& input : at_point) {
    auto gradient = at::empty_like(input);
    double* value = input.data_ptr<double>();
    for (int64_t i = 0; i < input.numel(); ++i) {
      const double middle = value[i];
      value[i] = middle + kStep;
      const double above = f(at_point);
      value[i] = middle - kStep;
      const double below = f(at_point);
      value[i] = middle;
      gradient.data_ptr<double>()[i] = (above - below) / (2 * kStep);
    }
    result.push_back(gradient);
  }
  return result;
}

}  // namespace motley::test
