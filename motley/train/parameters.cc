#include "motley/train/parameters.h"

#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>

#include <cmath>

namespace motley {

bool weight_decays(const std::string& name, int64_t dim) {
  if (dim < 2) return false;
  for (const char* part : {"norm", "bias", "zero_experts.constant"}) {
    const size_t at = name.rfind(part);
    if (at == std::string::npos) continue;
    // "zero_experts.constant_gate" is a matrix and decays; "post_attention_layernorm.weight" does not.
    if (std::string_view(part) != "zero_experts.constant" || name.ends_with(part)) return false;
  }
  return true;
}

std::vector<TrainedParameter> trained_parameters(CausalLm& model) {
  std::vector<TrainedParameter> parameters;
  model.visit([&](const std::string& name, at::Tensor& tensor, TensorRole role) {
    if (role != TensorRole::kParameter) return;
    tensor.requires_grad_(true);
    parameters.push_back({name, tensor, weight_decays(name, tensor.dim())});
  });
  return parameters;
}

GradientSum::GradientSum(const std::vector<TrainedParameter>& parameters, int64_t passes)
    : parameters_(parameters) {
  if (passes > 1) sums_.resize(parameters.size());
}

void GradientSum::add_pass() {
  if (sums_.empty()) return;
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& tensor = parameters_[i].tensor;
    at::Tensor& gradient = tensor.mutable_grad();
    if (!gradient.defined() || gradient.scalar_type() == at::kFloat) continue;
    if (sums_[i].defined()) {
      sums_[i].add_(gradient);
    } else {
      sums_[i] = gradient.to(at::kFloat);
    }
    gradient.reset();
  }
}

std::vector<at::Tensor> GradientSum::take() {
  std::vector<at::Tensor> gradients(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& gradient = parameters_[i].tensor.mutable_grad();
    if (!sums_.empty() && sums_[i].defined()) {
      gradients[i] = std::move(sums_[i]);
      sums_[i] = at::Tensor();
    } else {
      gradients[i] = gradient;
    }
    gradient.reset();
  }
  return gradients;
}

namespace {

// Squares beyond fp32's range: scaled by the largest value, which is exact enough for clipping.
double norm_of_large(const at::Tensor& gradient) {
  const double largest = at::linalg_vector_norm(gradient, INFINITY, {}, false, at::kFloat).item<double>();
  if (!std::isfinite(largest)) return largest;
  const at::Tensor scaled = gradient.to(at::kFloat).div(largest);
  return largest * at::linalg_vector_norm(scaled).item<double>();
}

}  // namespace

double global_norm(const std::vector<at::Tensor>& gradients) {
  std::vector<at::Tensor> present, norms;
  for (const at::Tensor& gradient : gradients) {
    if (!gradient.defined()) continue;
    present.push_back(gradient);
    norms.push_back(at::linalg_vector_norm(gradient, 2, {}, false, at::kFloat));
  }
  if (norms.empty()) return 0;
  const at::Tensor all = at::stack(norms).cpu();  // one wait for a GPU, not one for each
  double squares = 0;
  for (size_t i = 0; i < present.size(); ++i) {
    const double fast = all.const_data_ptr<float>()[i];
    const double norm = std::isfinite(fast) ? fast : norm_of_large(present[i]);
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

void clip_gradients(std::vector<at::Tensor>& gradients, double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm) return;
  at::NoGradGuard no_grad;
  const double scale = max_norm / norm;
  for (at::Tensor& gradient : gradients) {
    if (gradient.defined()) gradient.mul_(scale);
  }
}

}  // namespace motley
