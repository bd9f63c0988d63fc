#include "motley/layers/moe_options.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "motley/base/error.h"
#include "motley/experts/resident_store.h"
#include "motley/layers/moe_layer.h"
#include "motley/layers/shared_expert_block.h"
#include "motley/layers/static_moe_layer.h"
#include "motley/layers/zero_expert_parameters.h"
#include "motley/parallel/local_dispatcher.h"
#include "motley/routing/gates.h"

namespace motley {
namespace {

void check_options(const MoeLayerOptions& options) {
  const auto fail = [](const char* where, const char* expected, const auto& found) {
    throw UserError(Mistake{where, expected, concat(found), ""});
  };
  check(options.gate);
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16) {
    fail("dtype", "float32 or bfloat16", c10::toString(options.dtype));
  }
  const int64_t width = options.shared_expert_width;
  if (width < 0) fail("shared_expert_intermediate_size", "at least 0", width);
  if (width == 0 && options.shared_expert_gate) {
    fail("shared_expert_gate", "false, for it has no effect without a shared expert", "true");
  }
  if (width > 0 && options.activation.kind != ActivationKind::kSwiGlu &&
      options.activation.kind != ActivationKind::kGeGlu) {
    fail("hidden_act", "a gated silu or gelu with a shared expert", "another activation");
  }
  if (options.gating == MoeGating::kDynamic) return;
  if (width > 0) fail("shared_expert_intermediate_size", "0 with static gating, which is a baseline", width);
  if (options.fp32_expert_gradients) {
    fail("fp32_expert_gradients", "false with static gating, whose gradients are autograd's", "true");
  }
}

std::unique_ptr<ResidentStore> make_store(const MoeLayerOptions& options) {
  return std::make_unique<ResidentStore>(
      ResidentStoreOptions{.num_experts = options.gate.num_experts,
                           .hidden_size = options.gate.hidden_size,
                           .expert_width = options.expert_width,
                           .activation = options.activation,
                           .bias = options.expert_bias,
                           .dtype = options.dtype,
                           .fp32_gradients = options.fp32_expert_gradients});
}

std::unique_ptr<MoeBlock> make_block(const MoeLayerOptions& options) {
  const int64_t hidden_size = options.gate.hidden_size;
  auto gate = make_gate(options.gate, options.dtype);
  auto store = make_store(options);
  ZeroExperts zero_experts = make_zero_experts(options.gate.zero_experts, hidden_size, options.dtype);
  if (options.gating == MoeGating::kStatic) {
    return std::make_unique<StaticMoeLayer>(options.gate, std::move(gate), std::move(store),
                                            std::move(zero_experts));
  }
  auto routed = std::make_unique<MoeLayer>(std::move(gate), std::move(store),
                                           std::make_shared<LocalDispatcher>(), std::move(zero_experts));
  if (options.shared_expert_width == 0) return routed;
  at::Tensor shared_gate;
  if (options.shared_expert_gate) shared_gate = at::zeros({1, hidden_size}, options.dtype);
  return std::make_unique<SharedExpertBlock>(
      std::move(routed),
      FeedForward(hidden_size, options.shared_expert_width, options.activation, options.dtype), shared_gate,
      options.shared_expert_names);
}

bool contains(const std::string& name, const char* part) { return name.find(part) != std::string::npos; }

void initialise(MoeBlock& block, const ParameterInit& init) {
  const at::NoGradGuard no_grad;
  block.visit("", [&](const std::string& name, at::Tensor& tensor, TensorRole role) {
    if (role != TensorRole::kParameter || contains(name, "proj_bias")) return;  // zeros they are
    const double std = contains(name, "down_proj") ? init.output_std.value_or(init.std) : init.std;
    tensor.normal_(0.0, std, init.generator);
  });
}

}  // namespace

std::unique_ptr<MoeBlock> make_moe_layer(const MoeLayerOptions& options,
                                         const std::optional<ParameterInit>& init) {
  check_options(options);
  auto block = make_block(options);
  if (init) initialise(*block, *init);
  return block;
}

}  // namespace motley
