#include "motley/ops/expert_ffn_autograd.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "motley/ops/single_backward.h"
#include "motley/ops/tensor_weights.h"
#include "motley/ops/zero_expert_arguments.h"

namespace motley::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A weight source, or none, as autograd's context can hold it.
struct SourceHolder final : torch::CustomClassHolder {
  explicit SourceHolder(std::shared_ptr<WeightSource> held) : source(std::move(held)) {}
  std::shared_ptr<WeightSource> source;
};

// Positions of forward's arguments, which are also those of backward's results.
enum Argument : size_t {
  kX,
  kGateWeights,
  kAnchor,
  kGateUp,
  kDown,
  kGateUpBias,
  kDownBias,
  kConstant,
  kConstantGate,
  kNumArguments = 14
};
// Autograd counts edges of the tensors that are there: those of the weights (or of the anchor that stands
// for a source's) begin here, those of the constant experts follow.
constexpr size_t kFirstWeightEdge = 2;

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

// The gradients through the zero-computation experts, added to those through the others.
void add_zero_experts(const at::Tensor& dy, const variable_list& saved, at::IntArrayRef kinds,
                      int64_t num_experts, variable_list& results) {
  if (kinds.empty()) return;
  const auto &slots = saved[11], &constant = saved[12], &constant_gate = saved[13];
  const auto [dx, dweights, dconstant, dconstant_gate] = zero_experts_backward_operator().call(
      dy, saved[0], slots, saved[1], num_experts, kinds, optional(constant), optional(constant_gate));
  results[kX].add_(dx);
  results[kGateWeights].add_(dweights);
  if (constant.defined()) results[kConstant] = dconstant.to(constant.scalar_type());
  if (constant_gate.defined()) results[kConstantGate] = dconstant_gate.to(constant_gate.scalar_type());
}

class ExpertFfnNode : public torch::autograd::Function<ExpertFfnNode> {
 public:
  // Either `source` and the anchor, which makes autograd build the node where only the source's weights
  // want gradients; or weights as tensors, with what else belongs to them in `weights`.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gate_weights,
                            const OptionalTensor& /*anchor*/, const OptionalTensor& gate_up,
                            const OptionalTensor& down, const OptionalTensor& gate_up_bias,
                            const OptionalTensor& down_bias, const OptionalTensor& /*constant*/,
                            const OptionalTensor& /*constant_gate*/, const ExpertWeights& weights,
                            const RoutingPlan& plan, const std::shared_ptr<WeightSource>& source,
                            const ChosenZeroExperts& zero_experts, at::ScalarType out_dtype) {
    TensorWeights tensors(weights);
    auto [y, hidden] = compute_expert_ffn(x, gate_weights, plan, source ? *source : tensors, out_dtype,
                                          /*keep_hidden=*/true, zero_experts);
    const ZeroExpertTensors zero(zero_experts.experts);
    context->save_for_backward({x, gate_weights, hidden, plan.row_assignment, plan.expert_offset,
                                plan.token_rows, weights.gate_up, weights.down, weights.gate_up_bias,
                                weights.down_bias, weights.place_of_expert, zero_experts.slots,
                                zero_experts.experts.constant, zero_experts.experts.constant_gate});
    context->saved_data["kinds"] = zero.kinds;
    context->saved_data["source"] = at::IValue::make_capsule(c10::make_intrusive<SourceHolder>(source));
    context->saved_data["activation"] = static_cast<int64_t>(weights.activation.kind);
    context->saved_data["alpha"] = weights.activation.alpha;
    context->saved_data["limit"] = weights.activation.limit;
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_single_backward("expert_ffn");
    const auto saved = context->get_saved_variables();
    const auto& data = context->saved_data;
    const RoutingPlan plan = {saved[3], saved[4], saved[5]};
    const auto source =
        c10::static_intrusive_pointer_cast<SourceHolder>(data.at("source").toCapsule())->source;

    variable_list results(kNumArguments);
    const auto compute = [&](WeightSource& from, bool weight_gradients) {
      auto [dx, dgate_weights] = compute_expert_ffn_backward(gradients[0], saved[0], saved[2], saved[1], plan,
                                                             from, weight_gradients);
      results[kX] = dx;
      results[kGateWeights] = dgate_weights;
      add_zero_experts(gradients[0], saved, data.at("kinds").toIntVector(), plan.num_experts(), results);
    };
    if (source) {
      compute(*source, context->needs_input_grad(kFirstWeightEdge));
      return results;
    }
    const Activation activation = {.kind = static_cast<ActivationKind>(data.at("activation").toInt()),
                                   .alpha = data.at("alpha").toDouble(),
                                   .limit = data.at("limit").toDouble()};
    const auto weights = weights_of(saved[6], saved[7], saved[8], saved[9], saved[10], activation);
    TensorWeights tensors(weights);
    const size_t num_weights = 2 + saved[8].defined() + saved[9].defined();
    compute(tensors, context->needs_input_grad({{kFirstWeightEdge, kFirstWeightEdge + num_weights}}));
    results[kGateUp] = tensors.gradients().gate_up;
    results[kDown] = tensors.gradients().down;
    results[kGateUpBias] = tensors.gradients().gate_up_bias;
    results[kDownBias] = tensors.gradients().down_bias;
    return results;
  }
};

}  // namespace

at::Tensor expert_ffn_node(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                           std::shared_ptr<WeightSource> source, at::ScalarType out_dtype,
                           const ChosenZeroExperts& zero_experts) {
  auto anchor = at::empty({0}, x.options().dtype(at::kFloat));
  anchor.set_requires_grad(source->requires_grad());
  const OptionalTensor none;
  return ExpertFfnNode::apply(x, gate_weights, OptionalTensor(anchor), none, none, none, none,
                              optional(zero_experts.experts.constant),
                              optional(zero_experts.experts.constant_gate), ExpertWeights(), plan, source,
                              zero_experts, out_dtype);
}

at::Tensor expert_ffn_node(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                           const ExpertWeights& weights, at::ScalarType out_dtype) {
  return ExpertFfnNode::apply(x, gate_weights, OptionalTensor(), optional(weights.gate_up),
                              optional(weights.down), optional(weights.gate_up_bias),
                              optional(weights.down_bias), OptionalTensor(), OptionalTensor(), weights, plan,
                              std::shared_ptr<WeightSource>(), ChosenZeroExperts(), out_dtype);
}

}  // namespace motley::ops
