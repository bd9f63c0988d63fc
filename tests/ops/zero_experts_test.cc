#include "motley/ops/zero_experts.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <gtest/gtest.h>

#include "tests/support/expert_problem.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"
#include "tests/support/reference.h"

namespace motley::test {
namespace {

constexpr int64_t kNumExperts = 3;

struct Problem {
  at::Tensor x, slots, weights, dy;
  ZeroExperts experts;

  explicit Problem(at::ScalarType dtype, int64_t num_tokens = 23, int64_t width = 37)
      : x(random_values({num_tokens, width}, dtype, 1)),
        weights(random_values({num_tokens, 4}, at::kFloat, 2)),
        dy(random_values({num_tokens, width}, at::kFloat, 3)) {
    experts.kinds = {ZeroExpertKind::kConstant, ZeroExpertKind::kZero, ZeroExpertKind::kCopy,
                     ZeroExpertKind::kConstant};
    experts.constant = random_values({2, width}, at::kFloat, 4);
    experts.constant_gate = random_values({2, 2, width}, at::kFloat, 5);
    // Every slot, none and an FFN expert's, in every position.
    slots = at::full({num_tokens, 4}, -1, at::TensorOptions().dtype(at::kInt));
    for (int64_t a = 0; a < slots.numel(); ++a) {
      slots.data_ptr<int32_t>()[a] = static_cast<int32_t>((a * 5 + a / 4) % (kNumExperts + 5)) - 1;
    }
  }

  at::Tensor run() const { return ops::zero_experts(x, slots, weights, kNumExperts, experts); }
  Tensors leaves() const {
    return {leaf(x), leaf(weights), leaf(experts.constant), leaf(experts.constant_gate)};
  }
  Problem with(const Tensors& inputs) const {
    Problem other = *this;
    other.x = inputs[0];
    other.weights = inputs[1];
    other.experts.constant = inputs[2];
    other.experts.constant_gate = inputs[3];
    return other;
  }
  at::Tensor reference() const { return reference_zero_experts(x, slots, weights, kNumExperts, experts); }
};

const char* const kGradientNames[] = {"dx", "dweights", "dconstant", "dconstant_gate"};

TEST(ZeroExperts, IsTheFormulaByHand) {
  // One token [1, 2]: a copy of weight 0.5, a zero expert, and a constant one of weight 2 whose gate
  // gives logits [0, ln 3], hence a1 = 1/4, a2 = 3/4.
  ZeroExperts experts;
  experts.kinds = {ZeroExpertKind::kCopy, ZeroExpertKind::kZero, ZeroExpertKind::kConstant};
  experts.constant = at::tensor({4.0F, 8.0F}).view({1, 2});
  experts.constant_gate = at::tensor({0.0F, 0.0F, 1.0986122887F, 0.0F}).view({1, 2, 2});
  const auto slots = at::tensor({1, 2, 3}, at::TensorOptions().dtype(at::kInt)).view({1, 3});
  const auto y = ops::zero_experts(at::tensor({1.0F, 2.0F}).view({1, 2}), slots,
                                   at::tensor({0.5F, 9.0F, 2.0F}).view({1, 3}), 1, experts);
  // 0.5 x + 2 (x / 4 + 3 v / 4)
  expect_close("y", y, at::tensor({7.0, 14.0}).view({1, 2}), 1e-6);
}

TEST(ZeroExperts, AgreesWithTheReference) {
  for (const auto& precision : cpu_precisions()) {
    for (const int64_t width : {1, 16, 37}) {
      SCOPED_TRACE(precision.name + " width " + std::to_string(width));
      const Problem problem(precision.dtype, 23, width);
      const auto y = problem.run();
      EXPECT_EQ(y.scalar_type(), at::kFloat);
      expect_close("y", y, problem.reference(), 1e-5);  // x is read exactly, and y is fp32
    }
  }
}

TEST(ZeroExperts, ReferenceGradientsAreFiniteDifferences) {
  Problem problem(at::kDouble, 5, 6);
  Tensors inputs = problem.leaves();
  for (auto& input : inputs) {
    input = leaf(input.to(at::kDouble));
  }
  const auto dy = problem.dy.to(at::kDouble);
  const auto found = gradients(problem.with(inputs).reference(), inputs, dy);
  const auto wanted = finite_differences(
      [&](const Tensors& at_point) {
        return problem.with(at_point).reference().mul(dy).sum().item<double>();
      },
      inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    expect_close(kGradientNames[i], found[i], wanted[i], 1e-7);
  }
}

TEST(ZeroExperts, GradientsAgreeWithTheReference) {
  for (const auto& precision : cpu_precisions()) {
    SCOPED_TRACE(precision.name);
    const Problem problem(precision.dtype, 300);
    const auto inputs = problem.leaves(), reference_inputs = problem.leaves();
    const auto found = gradients(problem.with(inputs).run(), inputs, problem.dy);
    const auto wanted =
        gradients(problem.with(reference_inputs).reference(), reference_inputs, problem.dy.to(at::kDouble));
    for (size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_EQ(found[i].scalar_type(), inputs[i].scalar_type()) << kGradientNames[i];
      expect_close(kGradientNames[i], found[i], wanted[i], precision.tolerance);
    }
  }
}

TEST(ZeroExperts, GradientsHaveTheSameBitsForAnyNumberOfThreads) {
  const Problem problem(at::kFloat, 1000);
  const int before = at::get_num_threads();
  Tensors expected;
  for (const int threads : {1, 2, 3}) {
    SCOPED_TRACE(threads);
    at::set_num_threads(threads);
    const auto inputs = problem.leaves();
    const auto found = gradients(problem.with(inputs).run(), inputs, problem.dy);
    expected = expected.empty() ? found : expected;
    for (size_t i = 0; i < inputs.size(); ++i) {
      expect_same_bits(kGradientNames[i], found[i], expected[i]);
    }
  }
  at::set_num_threads(before);
}

TEST(ZeroExperts, TakesAnyLayout) {
  const Problem problem(at::kFloat);
  const auto expected_y = problem.run();
  const auto inputs = problem.leaves();
  const auto dy = at::full({1, 1}, 0.5F).expand(problem.x.sizes());
  const auto expected = gradients(problem.with(inputs).run(), inputs, dy.contiguous());
  for (const auto& layout : {strided, misaligned}) {
    Problem other = problem.with({layout(problem.x), layout(problem.weights),
                                  layout(problem.experts.constant), layout(problem.experts.constant_gate)});
    other.slots = layout(problem.slots);
    expect_same_bits("y", other.run(), expected_y);
  }
  for (const auto& gradient : {dy, strided(dy), misaligned(dy)}) {
    const auto again = problem.leaves();
    const auto found = gradients(problem.with(again).run(), again, gradient);
    for (size_t i = 0; i < found.size(); ++i) {
      expect_same_bits(kGradientNames[i], found[i], expected[i]);
    }
  }
}

TEST(ZeroExperts, WorksWithoutTokensAndWithoutParameters) {
  EXPECT_EQ(Problem(at::kFloat, 0).run().sizes(), at::IntArrayRef({0, 37}));
  Problem problem(at::kFloat);
  problem.experts = {};
  problem.experts.kinds = {ZeroExpertKind::kCopy};
  problem.slots.clamp_(-1, kNumExperts);
  problem.x = leaf(problem.x);
  const auto found = gradients(problem.run(), {problem.x}, problem.dy);
  const auto weight = at::where(problem.slots.eq(kNumExperts), problem.weights, 0.0).sum(1, true);
  expect_close("dx", found[0], weight.mul(problem.dy).to(at::kDouble), 1e-6);
}

TEST(ZeroExperts, NamesWhatIsWrong) {
  const Problem problem(at::kFloat);
  auto bad = problem;
  bad.slots = problem.slots.add(1);
  EXPECT_EQ(error_of([&] { bad.run(); }), "[zero_experts] expected values of slots from -1 to 6, got 7");
  bad = problem;
  bad.experts.constant = at::Tensor();
  EXPECT_EQ(error_of([&] { bad.run(); }),
            "[zero_experts] expected constant [Z_constant, D] for 2 constant experts, got none");
  bad = problem;
  bad.weights = problem.weights.to(at::kDouble);
  EXPECT_EQ(error_of([&] { bad.run(); }), "[zero_experts] expected weights of dtype Float, got Double");
  bad = problem;
  bad.x = problem.x.to(at::kHalf);
  EXPECT_EQ(error_of([&] { bad.run(); }), "[zero_experts] expected x of dtype Float or BFloat16, got Half");
  bad = problem;
  bad.x = leaf(problem.x);
  EXPECT_EQ(
      error_of([&] { gradients(bad.run(), {bad.x}, problem.dy, /*create_graph=*/true); }),
      "[zero_experts] expected a first backward, got create_graph=True: double backward is not supported");
}

}  // namespace
}  // namespace motley::test
