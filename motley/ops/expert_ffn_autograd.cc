#include "motley/ops/expert_ffn_autograd.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "motley/ops/expert_ffn_compute.h"
#include "motley/ops/single_backward.h"
#include "motley/ops/tensor_weights.h"

namespace motley::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A weight source, or none, as autograd's context can hold it.
struct SourceHolder final : torch::CustomClassHolder {
  explicit SourceHolder(std::shared_ptr<WeightSource> held) : source(std::move(held)) {}
  std::shared_ptr<WeightSource> source;
};

// Positions of forward's tensors, which are also those of backward's results.
enum Input : size_t { kX, kGateWeights, kAnchor, kGateUp, kDown, kGateUpBias, kDownBias, kNumTensors };
constexpr size_t kNumArguments = kNumTensors + 5;

ExpertWeights weights_of(const at::Tensor& gate_up, const at::Tensor& down, const at::Tensor& gate_up_bias,
                         const at::Tensor& down_bias, const at::Tensor& place_of_expert,
                         const Activation& activation) {
  ExpertWeights weights;
  weights.gate_up = gate_up;
  weights.down = down;
  weights.gate_up_bias = gate_up_bias;
  weights.down_bias = down_bias;
  weights.place_of_expert = place_of_expert;
  weights.activation = activation;
  return weights;
}

class ExpertFfnNode : public torch::autograd::Function<ExpertFfnNode> {
 public:
  // Either `source`, or the four weight tensors with place_of_expert and activation. The anchor makes
  // autograd build the node where only the source's weights need gradients.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gate_weights,
                            const at::Tensor& /*anchor*/, const at::Tensor& gate_up, const at::Tensor& down,
                            const at::Tensor& gate_up_bias, const at::Tensor& down_bias,
                            const at::Tensor* place_of_expert, const Activation& activation,
                            const RoutingPlan& plan, const std::shared_ptr<WeightSource>& source,
                            at::ScalarType out_dtype) {
    const at::Tensor places = place_of_expert == nullptr ? at::Tensor() : *place_of_expert;
    const auto weights = weights_of(gate_up, down, gate_up_bias, down_bias, places, activation);
    TensorWeights tensors(weights);
    auto [y, hidden] = compute_expert_ffn(x, gate_weights, plan, source ? *source : tensors, out_dtype,
                                          /*keep_hidden=*/true);
    context->save_for_backward({x, gate_weights, hidden, plan.row_assignment, plan.expert_offset,
                                plan.token_rows, gate_up, down, gate_up_bias, down_bias, places});
    context->saved_data["source"] = at::IValue::make_capsule(c10::make_intrusive<SourceHolder>(source));
    context->saved_data["activation"] = static_cast<int64_t>(activation.kind);
    context->saved_data["alpha"] = activation.alpha;
    context->saved_data["limit"] = activation.limit;
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_single_backward("expert_ffn");
    const auto saved = context->get_saved_variables();
    const auto& data = context->saved_data;
    const RoutingPlan plan = {saved[3], saved[4], saved[5]};
    const auto& source =
        c10::static_intrusive_pointer_cast<SourceHolder>(data.at("source").toCapsule())->source;

    variable_list results(kNumArguments);
    const auto compute = [&](WeightSource& from, bool weight_gradients) {
      auto [dx, dgate_weights] = compute_expert_ffn_backward(gradients[0], saved[0], saved[2], saved[1], plan,
                                                             from, weight_gradients);
      results[kX] = dx;
      results[kGateWeights] = dgate_weights;
    };
    if (source) {
      compute(*source, context->needs_input_grad(kAnchor));
      return results;
    }
    const ExpertWeights weights = {
        .gate_up = saved[6],
        .down = saved[7],
        .gate_up_bias = saved[8],
        .down_bias = saved[9],
        .place_of_expert = saved[10],
        .activation = {.kind = static_cast<ActivationKind>(data.at("activation").toInt()),
                       .alpha = data.at("alpha").toDouble(),
                       .limit = data.at("limit").toDouble()}};
    TensorWeights tensors(weights);
    compute(tensors, context->needs_input_grad({{kGateUp, kNumTensors}}));
    results[kGateUp] = tensors.gradients().gate_up;
    results[kDown] = tensors.gradients().down;
    results[kGateUpBias] = tensors.gradients().gate_up_bias;
    results[kDownBias] = tensors.gradients().down_bias;
    return results;
  }
};

}  // namespace

at::Tensor expert_ffn_node(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                           std::shared_ptr<WeightSource> source, at::ScalarType out_dtype) {
  auto anchor = at::empty({0}, x.options().dtype(at::kFloat));
  anchor.set_requires_grad(source->requires_grad());
  const at::Tensor none;
  return ExpertFfnNode::apply(x, gate_weights, anchor, none, none, none, none, nullptr, Activation{}, plan,
                              source, out_dtype);
}

at::Tensor expert_ffn_node(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                           const ExpertWeights& weights, at::ScalarType out_dtype) {
  return ExpertFfnNode::apply(x, gate_weights, at::Tensor(), weights.gate_up, weights.down,
                              weights.gate_up_bias, weights.down_bias, &weights.place_of_expert,
                              weights.activation, plan, std::shared_ptr<WeightSource>(), out_dtype);
}

}  // namespace motley::ops
