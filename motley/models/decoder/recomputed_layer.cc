#include "motley/models/decoder/recomputed_layer.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "motley/nn/projection.h"
#include "motley/ops/single_backward.h"

namespace motley {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<at::Tensor>;

// What a layer needs besides its tensors, as autograd's context can hold it.
struct Call final : torch::CustomClassHolder {
  Call(const DecoderLayer& run, const DecoderState& state)
      : layer(run), batch(state.batch), options(state.options), rotary(state.rotary) {
    options.observe = nullptr;
  }
  const DecoderLayer& layer;
  PackedBatch batch;
  ForwardOptions options;
  const RotaryTable& rotary;
};

// x, and of an MoE layer its logits and losses: all that others take gradients through.
variable_list differentiable(const DecoderState& state) {
  variable_list results = {state.x};
  if (state.output.routings.empty()) return results;
  const Routing& routing = state.output.routings.back();
  results.push_back(routing.logits);
  for (const AuxiliaryLoss& loss : routing.losses) results.push_back(loss.value);
  return results;
}

class RecomputedLayer : public torch::autograd::Function<RecomputedLayer> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const OptionalTensor& previous_logits, c10::intrusive_ptr<Call> call,
                               CausalLmOutput* output) {
    context->save_for_backward({x, previous_logits.value_or(at::Tensor())});
    context->set_materialize_grads(false);
    DecoderState state{call->batch, call->options, call->rotary, x, previous_logits.value_or(at::Tensor()),
                       {}};
    call->layer.forward(state);
    context->saved_data["call"] = at::IValue::make_capsule(std::move(call));
    variable_list results = differentiable(state);
    *output = std::move(state.output);
    return results;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    ops::check_single_backward("recomputed layer");
    const auto saved = context->get_saved_variables();
    const auto call = c10::static_intrusive_pointer_cast<Call>(context->saved_data.at("call").toCapsule());
    const auto input = [](const at::Tensor& tensor) {
      return tensor.defined() ? tensor.detach().requires_grad_(true) : tensor;
    };
    const at::Tensor x = input(saved[0]), previous_logits = input(saved[1]);
    variable_list roots, root_gradients;
    {
      const at::AutoGradMode enable(true);
      DecoderState state{call->batch, call->options, call->rotary, x, previous_logits, {}};
      call->layer.forward(state);
      const variable_list results = differentiable(state);
      for (size_t i = 0; i < results.size(); ++i) {
        if (!gradients[i].defined() || !results[i].requires_grad()) continue;
        roots.push_back(results[i]);
        root_gradients.push_back(gradients[i]);
      }
    }
    torch::autograd::backward(roots, root_gradients);
    const at::Tensor none;
    return {x.grad(), previous_logits.defined() ? previous_logits.grad() : none, none, none};
  }
};

}  // namespace

void forward_recomputed(const DecoderLayer& layer, DecoderState& state) {
  // Autograd builds a node only for inputs that want gradients. A few rows keep next to nothing, and would be
  // multiplied in another way, with other bits, in the node's forward, which builds no graph (project).
  if (!state.x.requires_grad() || state.x.size(0) <= kMostProjectedRows) return layer.forward(state);
  const OptionalTensor previous =
      state.previous_logits.defined() ? OptionalTensor(state.previous_logits) : std::nullopt;
  CausalLmOutput output;
  const variable_list results =
      RecomputedLayer::apply(state.x, previous, c10::make_intrusive<Call>(layer, state), &output);
  state.x = results[0];
  if (output.routings.empty()) return;
  Routing routing = std::move(output.routings.back());
  routing.logits = results[1];
  for (size_t i = 0; i < routing.losses.size(); ++i) routing.losses[i].value = results[2 + i];
  state.previous_logits = routing.logits;
  state.output.routings.push_back(std::move(routing));
  state.output.moe_layers.push_back(output.moe_layers.back());
}

}  // namespace motley
