#include "motley/nn/feed_forward.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>

#include "motley/nn/projection.h"
#include "motley/ops/part.h"

namespace motley {

FeedForward::FeedForward(int64_t hidden_size, int64_t intermediate_size, const Activation& activation,
                         at::ScalarType dtype)
    : kind_(activation.kind) {
  TORCH_CHECK(kind_ == ActivationKind::kSwiGlu || kind_ == ActivationKind::kGeGlu,
              "[FeedForward] expected a gated activation, silu or gelu, got kind ",
              static_cast<int64_t>(kind_));
  TORCH_CHECK(hidden_size > 0 && intermediate_size > 0, "[FeedForward] expected positive sizes, got ",
              hidden_size, " and ", intermediate_size);
  gate_ = at::zeros({intermediate_size, hidden_size}, dtype);
  up_ = at::zeros({intermediate_size, hidden_size}, dtype);
  down_ = at::zeros({hidden_size, intermediate_size}, dtype);
}

at::Tensor FeedForward::forward(const at::Tensor& x) const {
  const Part part("dense feed-forward");
  const at::Tensor gate = project(x, gate_);
  const at::Tensor activated = kind_ == ActivationKind::kSwiGlu ? at::silu(gate) : at::gelu(gate);
  return project(at::mul(activated, project(x, up_)), down_);
}

void FeedForward::visit(const std::string& prefix, const TensorVisitor& visitor) {
  visitor(prefix + "gate_proj.weight", gate_, TensorRole::kParameter);
  visitor(prefix + "up_proj.weight", up_, TensorRole::kParameter);
  visitor(prefix + "down_proj.weight", down_, TensorRole::kParameter);
}

}  // namespace motley
