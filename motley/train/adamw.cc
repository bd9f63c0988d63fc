#include "motley/train/adamw.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

namespace motley {

AdamW::AdamW(std::vector<TrainedParameter> parameters, const AdamWOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  at::NoGradGuard no_grad;
  for (const auto& parameter : parameters_) {
    const at::Tensor& tensor = parameter.tensor;
    const auto fp32 = tensor.options().dtype(at::kFloat).requires_grad(false);
    Moments moments{at::zeros(tensor.sizes(), fp32), at::zeros(tensor.sizes(), fp32), {}};
    // The fused kernel walks flat memory.
    if (tensor.scalar_type() != at::kFloat || !tensor.is_contiguous()) {
      moments.master = tensor.detach().to(at::kFloat).contiguous().clone();
    }
    moments_.push_back(std::move(moments));
  }
}

void AdamW::step(const std::vector<at::Tensor>& gradients, double learning_rate, int64_t step) {
  at::NoGradGuard no_grad;
  if (parameters_.empty()) return;
  const at::Tensor step_count =
      at::scalar_tensor(static_cast<double>(step), parameters_[0].tensor.options().dtype(at::kFloat));
  // Tensor by tensor, so that at most one gradient is widened at a time.
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!gradients[i].defined()) continue;
    Moments& moments = moments_[i];
    const at::Tensor weights = moments.master.defined() ? moments.master : parameters_[i].tensor.detach();
    const at::Tensor gradient = gradients[i].to(at::kFloat).contiguous();
    at::_fused_adamw_({weights}, {gradient}, {moments.exp_avg}, {moments.exp_avg_sq}, {}, {step_count},
                      learning_rate, options_.beta1, options_.beta2,
                      parameters_[i].decays ? options_.weight_decay : 0.0, options_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false);
    if (moments.master.defined()) parameters_[i].tensor.detach().copy_(moments.master);
  }
}

NamedTensors AdamW::state() const {
  NamedTensors tensors;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const std::string& name = parameters_[i].name;
    tensors.emplace_back(name + ".exp_avg", moments_[i].exp_avg);
    tensors.emplace_back(name + ".exp_avg_sq", moments_[i].exp_avg_sq);
    if (moments_[i].master.defined()) tensors.emplace_back(name + ".master", moments_[i].master);
  }
  return tensors;
}

void AdamW::load(const TensorFolder& state) {
  for (auto& [name, tensor] : this->state()) {
    at::Tensor target = tensor;
    target.copy_(state.tensor(name, tensor.sizes()));
  }
}

}  // namespace motley
