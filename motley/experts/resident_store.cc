#include "motley/experts/resident_store.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <array>
#include <cstdint>

#include "motley/base/error.h"

namespace motley {
namespace {

constexpr std::array kNames = {"gate_up_proj", "down_proj", "gate_up_proj_bias", "down_proj_bias"};

// How often a tensor was written in place; nobody counts for tensors made in inference mode, which no
// backward meets, either.
uint32_t version_of(const at::Tensor& tensor) {
  return tensor.defined() && !tensor.is_inference() ? tensor._version() : 0;
}

// Handles to the parameters as they were when the layer ran; loading others later does not reach backward.
class ResidentSource : public WeightSource {
 public:
  ResidentSource(const ExpertWeights& weights, bool fp32_gradients)
      : weights_(weights), versions_(versions()), fp32_gradients_(fp32_gradients) {}

  int num_waves() const override { return 1; }
  ExpertWeights acquire(int, Pass pass) override {
    if (pass == Pass::kBackward) check_versions();
    return weights_;
  }

  bool requires_grad() const override {
    return wants_gradient(weights_.gate_up) || wants_gradient(weights_.down) ||
           wants_gradient(weights_.gate_up_bias) || wants_gradient(weights_.down_bias);
  }

  ExpertWeightGradients gradient_buffers(int) override {
    return {buffer(weights_.gate_up), buffer(weights_.down), buffer(weights_.gate_up_bias),
            buffer(weights_.down_bias)};
  }

  void accumulate_gradients(int, const ExpertWeightGradients& gradients) override {
    add(weights_.gate_up, gradients.gate_up);
    add(weights_.down, gradients.down);
    add(weights_.gate_up_bias, gradients.gate_up_bias);
    add(weights_.down_bias, gradients.down_bias);
  }

 private:
  using Versions = std::array<uint32_t, kNames.size()>;

  Versions versions() const {
    return {version_of(weights_.gate_up), version_of(weights_.down), version_of(weights_.gate_up_bias),
            version_of(weights_.down_bias)};
  }

  // The compute node saves no weights, so autograd's own check of saved tensors does not see them.
  void check_versions() const {
    const Versions now = versions();
    for (size_t i = 0; i < kNames.size(); ++i) {
      TORCH_CHECK(now[i] == versions_[i], "[experts] expected ", kNames[i],
                  " in backward as forward read it (", "version ", versions_[i],
                  "), got it modified by an inplace operation (version ", now[i],
                  "): change weights after backward");
    }
  }

  static bool wants_gradient(const at::Tensor& parameter) {
    return parameter.defined() && parameter.requires_grad();
  }

  // The first gradient of a step is allocated by the operator, which need not add to zeros then.
  at::Tensor buffer(const at::Tensor& parameter) const {
    if (!wants_gradient(parameter)) return {};
    at::Tensor& gradient = parameter.mutable_grad();
    if (!gradient.defined() && fp32_gradients_) {
      gradient = at::zeros_like(parameter, parameter.options().dtype(at::kFloat).requires_grad(false));
    }
    return gradient;
  }

  static void add(const at::Tensor& parameter, const at::Tensor& gradient) {
    if (!wants_gradient(parameter) || !gradient.defined()) return;
    at::Tensor& sum = parameter.mutable_grad();
    if (sum.defined() && sum.is_same(gradient)) return;  // already added in place
    const at::NoGradGuard no_grad;
    if (sum.defined()) {
      sum.add_(gradient);
    } else {
      sum = gradient;
    }
  }

  ExpertWeights weights_;
  Versions versions_;
  bool fp32_gradients_;
};

void require_positive(const char* option, int64_t value) {
  if (value <= 0) throw UserError(Mistake{option, "at least 1", concat(value), ""});
}

}  // namespace

ResidentStore::ResidentStore(const ResidentStoreOptions& options) : options_(options) {
  require_positive("num_experts", options.num_experts);
  require_positive("hidden_size", options.hidden_size);
  require_positive("moe_intermediate_size", options.expert_width);
  if (options.fp32_gradients && options.dtype == at::kFloat) {
    throw UserError(Mistake{"fp32_expert_gradients",
                            "false, for gradients of float32 weights are float32 anyway", "true", ""});
  }
  const int64_t hidden_rows = options.activation.hidden_rows(options.expert_width);
  weights_.activation = options.activation;
  weights_.gate_up = at::zeros({options.num_experts, hidden_rows, options.hidden_size}, options.dtype);
  weights_.down = at::zeros({options.num_experts, options.hidden_size, options.expert_width}, options.dtype);
  if (!options.bias) return;
  weights_.gate_up_bias = at::zeros({options.num_experts, hidden_rows}, options.dtype);
  weights_.down_bias = at::zeros({options.num_experts, options.hidden_size}, options.dtype);
}

std::shared_ptr<WeightSource> ResidentStore::acquire(const RoutingPlan&) {
  return std::make_shared<ResidentSource>(weights_, options_.fp32_gradients);
}

void ResidentStore::visit(const std::string& prefix, const TensorVisitor& visitor) {
  visitor(prefix + "gate_up_proj", weights_.gate_up, TensorRole::kParameter);
  visitor(prefix + "down_proj", weights_.down, TensorRole::kParameter);
  if (!options_.bias) return;
  visitor(prefix + "gate_up_proj_bias", weights_.gate_up_bias, TensorRole::kParameter);
  visitor(prefix + "down_proj_bias", weights_.down_bias, TensorRole::kParameter);
}

}  // namespace motley
