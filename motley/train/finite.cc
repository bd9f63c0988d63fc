#include "motley/train/finite.h"

#include <ATen/ops/isfinite.h>
#include <c10/core/GradMode.h>

#include "motley/base/concat.h"

namespace motley {
namespace {

bool all_finite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

}  // namespace

std::string first_non_finite(const std::vector<TrainedParameter>& parameters) {
  at::NoGradGuard no_grad;
  for (const auto& parameter : parameters) {
    if (!all_finite(parameter.tensor)) return parameter.name;
  }
  return "";
}

std::string find_non_finite(CausalLm& model, const PackedBatch& batch, const ForwardOptions& options,
                            const std::vector<TrainedParameter>& parameters,
                            const std::vector<at::Tensor>& gradients) {
  at::NoGradGuard no_grad;
  const std::string parameter = first_non_finite(parameters);
  if (!parameter.empty()) return concat("the parameter ", parameter, " holds values that are not finite");
  std::string block;
  ForwardOptions observed = options;
  observed.observe = [&](const std::string& name, const at::Tensor& value) {
    if (block.empty() && !all_finite(value)) block = name;
  };
  const CausalLmOutput output = model.forward(batch, observed);
  if (!block.empty()) return concat("the output of ", block, " is the first that is not finite");
  if (!all_finite(output.logits)) return "the logits are the first that are not finite";
  for (size_t layer = 0; layer < output.routings.size(); ++layer) {
    for (const auto& loss : output.routings[layer].losses) {
      if (all_finite(loss.value)) continue;
      return concat("the auxiliary loss ", loss.name, " of layer ", output.moe_layers[layer],
                    " is not finite");
    }
  }
  for (size_t i = gradients.size(); i-- > 0;) {
    if (gradients[i].defined() && !all_finite(gradients[i])) {
      return concat("the gradient of ", parameters[i].name, " is the first that is not finite");
    }
  }
  return "all parameters, activations and gradients are finite by themselves";
}

}  // namespace motley
