#include "tests/support/zero_expert_sum.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "motley/ops/expert_ffn.h"
#include "motley/ops/tensor_weights.h"
#include "tests/support/gpu.h"
#include "tests/support/gradients.h"
#include "tests/support/reference.h"

namespace motley::test {
namespace {

const char* const kNames[] = {"dx", "dgate_weights", "dconstant", "dconstant_gate"};

// x, gate weights, and the constant experts' parameters if there are any.
ZeroExperts experts_of(const std::vector<ZeroExpertKind>& kinds, const Tensors& inputs) {
  return inputs.size() > 2 ? ZeroExperts{kinds, inputs[2], inputs[3]} : ZeroExperts{kinds, {}, {}};
}

}  // namespace

const std::vector<std::vector<ZeroExpertKind>>& kinds_to_test() {
  static const std::vector<std::vector<ZeroExpertKind>> kinds = {
      {ZeroExpertKind::kConstant, ZeroExpertKind::kCopy},
      {ZeroExpertKind::kZero, ZeroExpertKind::kConstant},
      {ZeroExpertKind::kConstant, ZeroExpertKind::kConstant},
      {ZeroExpertKind::kCopy, ZeroExpertKind::kZero}};
  return kinds;
}

void check_zero_expert_sum(const ExpertProblem& problem, const std::vector<ZeroExpertKind>& kinds,
                           at::ScalarType parameters, double tolerance, at::Device device) {
  const int64_t width = problem.x.size(1), num_constant = ZeroExperts{kinds, {}, {}}.num_constant();
  Tensors inputs = {problem.x, problem.gate_weights};
  if (num_constant > 0) {
    inputs.push_back(random_values({num_constant, width}, parameters, 91));
    inputs.push_back(random_values({num_constant, 2, width}, parameters, 92).mul(0.3));
  }
  const Tensors cpu = leaves(inputs);
  const auto expected =
      reference_expert_ffn(cpu[0], cpu[1], problem.slots, problem.weights, problem.num_experts)
          .add(reference_zero_experts(cpu[0], problem.slots, cpu[1], problem.num_experts,
                                      experts_of(kinds, cpu)));
  const auto wanted = gradients(expected, cpu, problem.dy.to(at::kDouble));

  const ExpertProblem here = device.is_cpu() ? problem : on_gpu(problem);
  const auto run = [&](const Tensors& in, std::optional<at::ScalarType> dtype = {}) {
    return ops::expert_ffn_with_zero_experts(in[0], here.slots, in[1], here.plan,
                                             std::make_shared<ops::TensorWeights>(here.weights),
                                             experts_of(kinds, in), dtype);
  };
  for (at::Tensor& input : inputs) input = input.to(device);
  Tensors first;
  for (int pass = 0; pass < 2; ++pass) {
    const Tensors in = leaves(inputs);
    const auto y = run(in);
    EXPECT_EQ(y.scalar_type(), problem.x.scalar_type());
    expect_close("y", y, expected, tolerance);
    const auto found = gradients(y, in, here.dy);
    for (size_t i = 0; i < in.size(); ++i) {
      ASSERT_TRUE(found[i].defined()) << kNames[i];
      EXPECT_EQ(found[i].scalar_type(), in[i].scalar_type()) << kNames[i];
      expect_close(kNames[i], found[i],
                   wanted[i].defined() ? wanted[i] : at::zeros(in[i].sizes(), at::kDouble), tolerance);
      if (pass > 0) expect_same_bits(kNames[i], found[i], first[i]);
    }
    first = found;
  }
  const at::NoGradGuard no_grad;
  const auto y = run(inputs), in_fp32 = run(inputs, at::kFloat);
  expect_close("without gradients", y, expected, tolerance);
  EXPECT_EQ(in_fp32.scalar_type(), at::kFloat);
  expect_same_bits("rounded once", in_fp32.to(y.scalar_type()), y);
  if (device.is_cpu()) return;
  const auto from_slots = [&](const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights) {
    return ops::expert_ffn_from_slots(x, slots, weights, here.num_experts, here.weights,
                                      experts_of(kinds, inputs));
  };
  const auto straight = from_slots(inputs[0], here.slots, inputs[1]);
  expect_close("from slots", straight, expected, tolerance);
  expect_same_bits("from strided slots",
                   from_slots(strided(inputs[0]), strided(here.slots), misaligned(inputs[1])), straight);
}

}  // namespace motley::test
