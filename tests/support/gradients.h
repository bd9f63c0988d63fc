// Gradients for tests: by autograd and by finite differences.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <vector>

namespace motley::test {

using Tensors = std::vector<at::Tensor>;

// A leaf with these values that requires grad.
at::Tensor leaf(const at::Tensor& values);
// One for each, in dtype where that is given.
Tensors leaves(const Tensors& tensors, std::optional<at::ScalarType> dtype = {});

// d<output, weight>/d(inputs) by autograd; undefined for inputs that the output does not depend on.
Tensors gradients(const at::Tensor& output, const Tensors& inputs, const at::Tensor& weight,
                  bool create_graph = false);

// d f(inputs)/d(inputs) by central differences, element by element; all in fp64.
Tensors finite_differences(const std::function<double(const Tensors&)>& f, const Tensors& inputs);

}  // namespace motley::test
