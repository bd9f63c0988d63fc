// expert_ffn and its parts against the fp64 reference.
#include "motley/ops/expert_ffn.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/support/expert_problem.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"
#include "tests/support/reference.h"
#include "tests/support/weight_gradients.h"

namespace motley::test {
namespace {

const auto kInt32 = at::TensorOptions().dtype(at::kInt);

at::Tensor run(const ExpertProblem& problem, const Tensors& inputs,
               std::optional<at::ScalarType> out_dtype = {}) {
  return ops::expert_ffn(inputs[0], inputs[1], problem.plan, weights_of(inputs, problem.weights), out_dtype);
}

at::Tensor reference(const ExpertProblem& problem, const Tensors& inputs) {
  return reference_expert_ffn(inputs[0], inputs[1], problem.slots, weights_of(inputs, problem.weights),
                              problem.num_experts);
}

// Forward and all gradients of one problem.
void check(const ExpertProblem& problem, double tolerance) {
  const auto inputs = leaves(inputs_of(problem)), reference_inputs = leaves(inputs_of(problem));
  const auto y = run(problem, inputs), expected = reference(problem, reference_inputs);
  EXPECT_EQ(y.scalar_type(), problem.x.scalar_type());
  expect_close("y", y, expected, tolerance);
  expect_same_bits("y without gradients", run(problem, inputs_of(problem)), y);
  const auto found = gradients(y, inputs, problem.dy);
  const auto wanted = gradients(expected, reference_inputs, problem.dy.to(at::kDouble));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto zeros = at::zeros(inputs[i].sizes(), at::kDouble);
    ASSERT_TRUE(found[i].defined()) << kExpertFfnGradients[i];
    EXPECT_EQ(found[i].scalar_type(), inputs[i].scalar_type()) << kExpertFfnGradients[i];
    expect_close(kExpertFfnGradients[i], found[i], wanted[i].defined() ? wanted[i] : zeros, tolerance);
  }
}

TEST(ExpertFfn, AgreesWithTheReferenceForEveryActivation) {
  for (const auto& precision : cpu_precisions()) {
    for (const auto kind : {ActivationKind::kSwiGlu, ActivationKind::kGeGlu, ActivationKind::kClampedSwiGlu,
                            ActivationKind::kGelu, ActivationKind::kRelu, ActivationKind::kSilu}) {
      for (const bool bias : {false, true}) {
        SCOPED_TRACE(precision.name + " activation " + std::to_string(static_cast<int64_t>(kind)) +
                     (bias ? " bias" : ""));
        check(make_expert_problem({.dtype = precision.dtype, .activation = kind, .bias = bias}),
              precision.tolerance);
      }
    }
  }
}

TEST(ExpertFfn, AgreesWithTheReferenceForEverySpread) {
  for (const auto& precision : cpu_precisions()) {
    for (const auto spread : all_spreads()) {
      SCOPED_TRACE(precision.name + " " + name_of(spread));
      check(make_expert_problem({.dtype = precision.dtype, .spread = spread, .bias = true}),
            precision.tolerance);
    }
  }
}

TEST(ExpertFfn, AgreesWithTheReferenceForEverySize) {
  struct Size {
    int64_t num_tokens, top_k, num_experts, width, expert_width;
  };
  // One token as in decoding, one expert, full vectors and tiles, more rows than a tile, single columns.
  for (const Size& size : {Size{1, 2, 4, 64, 48}, Size{7, 1, 1, 16, 16}, Size{300, 2, 3, 128, 96},
                           Size{150, 5, 9, 33, 70}, Size{5, 2, 3, 1, 1}}) {
    for (const auto& precision : cpu_precisions()) {
      SCOPED_TRACE(precision.name + " tokens " + std::to_string(size.num_tokens));
      check(make_expert_problem({.dtype = precision.dtype,
                                 .bias = true,
                                 .num_tokens = size.num_tokens,
                                 .top_k = size.top_k,
                                 .num_experts = size.num_experts,
                                 .width = size.width,
                                 .expert_width = size.expert_width}),
            precision.tolerance);
    }
  }
}

TEST(ExpertFfn, ReferenceGradientsAreFiniteDifferences) {
  for (const auto kind : {ActivationKind::kSwiGlu, ActivationKind::kGeGlu, ActivationKind::kClampedSwiGlu,
                          ActivationKind::kGelu, ActivationKind::kRelu, ActivationKind::kSilu}) {
    SCOPED_TRACE(static_cast<int64_t>(kind));
    const auto problem = make_expert_problem(
        {.activation = kind, .bias = true, .num_tokens = 5, .width = 4, .expert_width = 3});
    const auto inputs = leaves(inputs_of(problem), at::kDouble);
    const auto dy = problem.dy.to(at::kDouble);
    const auto found = gradients(reference(problem, inputs), inputs, dy);
    const auto wanted = finite_differences(
        [&](const Tensors& at_point) { return reference(problem, at_point).mul(dy).sum().item<double>(); },
        inputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      expect_close(kExpertFfnGradients[i], found[i], wanted[i], 1e-6);
    }
  }
}

// A weight that is not a number spoils the tokens of its expert, and no others, forward and backward.
TEST(ExpertFfn, NanComesThrough) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& precision : cpu_precisions()) {
    for (const auto kind : {ActivationKind::kSwiGlu, ActivationKind::kGeGlu, ActivationKind::kClampedSwiGlu,
                            ActivationKind::kGelu, ActivationKind::kRelu, ActivationKind::kSilu}) {
      SCOPED_TRACE(precision.name + " activation " + std::to_string(static_cast<int64_t>(kind)));
      const auto problem = make_expert_problem({.dtype = precision.dtype, .activation = kind});
      const auto hit = problem.slots.eq(1).any(1);
      ASSERT_TRUE(hit.any().item<bool>() && !hit.all().item<bool>());
      for (const bool first_product : {true, false}) {
        const auto inputs = leaves(inputs_of(problem));
        const auto& weight = inputs[first_product ? 2 : 3];
        weight.detach().select(0, 1).select(0, weight.size(1) - 1).fill_(nan);
        const auto y = run(problem, inputs);
        EXPECT_TRUE(y.isnan().any(1).equal(hit)) << first_product;
        const auto found = gradients(y, inputs, problem.dy);
        EXPECT_TRUE(found[1].isnan().any(1).equal(hit)) << "gate weights, " << first_product;
        if (kind != ActivationKind::kRelu || !first_product) {
          EXPECT_TRUE(found[0].isnan().any(1).equal(hit)) << "x, " << first_product;
        }
      }
    }
  }
}

TEST(ExpertFfn, GivesPartialSumsInFp32) {
  const auto problem = make_expert_problem({.dtype = at::kBFloat16});
  const auto inputs = leaves(inputs_of(problem));
  const auto y = run(problem, inputs, at::kFloat);
  EXPECT_EQ(y.scalar_type(), at::kFloat);
  expect_same_bits("rounded once", y.to(at::kBFloat16), run(problem, inputs));
  const auto found = gradients(y, inputs, problem.dy.to(at::kFloat));
  const auto again = leaves(inputs_of(problem));
  const auto wanted = gradients(run(problem, again), again, problem.dy);
  for (size_t i = 0; i < found.size(); ++i) {
    expect_same_bits(kExpertFfnGradients[i], found[i], wanted[i]);
  }
}

TEST(ExpertFfn, TakesExpertsAtPlacesAndLeavesAbsentOnesOut) {
  for (const auto& precision : cpu_precisions()) {
    SCOPED_TRACE(precision.name);
    auto problem = make_expert_problem({.dtype = precision.dtype, .bias = true, .num_tokens = 60});
    // Expert 1 is absent and place 1 is free.
    problem.weights.place_of_expert = at::tensor({3, -1, 0, 2}, kInt32);
    check(problem, precision.tolerance);
  }
}

TEST(ExpertFfn, HasTheSameBitsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  for (const auto& precision : cpu_precisions()) {
    const auto problem =
        make_expert_problem({.dtype = precision.dtype, .bias = true, .num_tokens = 500, .width = 96});
    Tensors expected;
    for (const int threads : {1, 2, 3}) {
      SCOPED_TRACE(precision.name + " threads " + std::to_string(threads));
      at::set_num_threads(threads);
      const auto inputs = leaves(inputs_of(problem));
      const auto y = run(problem, inputs);
      auto found = gradients(y, inputs, problem.dy);
      found.push_back(y);
      expected = expected.empty() ? found : expected;
      for (size_t i = 0; i < found.size(); ++i) {
        expect_same_bits(i < inputs.size() ? kExpertFfnGradients[i] : "y", found[i], expected[i]);
      }
    }
  }
  at::set_num_threads(before);
}

TEST(ExpertFfn, TakesAnyLayout) {
  auto problem = make_expert_problem({.bias = true});
  const auto inputs = leaves(inputs_of(problem));
  const auto expected = run(problem, inputs);
  const auto dy = at::full({1}, 0.25F).expand(expected.sizes());
  const auto expected_gradients = gradients(expected, inputs, dy.contiguous());
  for (const auto& layout : {strided, misaligned}) {
    auto other = inputs_of(problem);
    auto laid_out = problem;
    for (const size_t i : {0, 1, 4, 5}) {
      other[i] = layout(other[i]);
    }
    laid_out.plan = {layout(problem.plan.row_assignment), layout(problem.plan.expert_offset),
                     layout(problem.plan.token_rows)};
    expect_same_bits("y", run(laid_out, other), expected);
    const auto again = leaves(inputs_of(problem));
    const auto found = gradients(run(laid_out, again), again, layout(dy));
    for (size_t i = 0; i < found.size(); ++i) {
      expect_same_bits(kExpertFfnGradients[i], found[i], expected_gradients[i]);
    }
  }
  const auto again = leaves(inputs_of(problem));
  const auto found = gradients(run(problem, again), again, dy);
  for (size_t i = 0; i < found.size(); ++i) {
    expect_same_bits(kExpertFfnGradients[i], found[i], expected_gradients[i]);
  }
}

TEST(ExpertFfn, ReadsExpertsAtAnyStride) {
  const auto problem = make_expert_problem({.bias = true});
  const auto inputs = leaves(inputs_of(problem));
  const auto expected = run(problem, inputs);
  const auto expected_gradients = gradients(expected, inputs, problem.dy);
  auto spaced = inputs_of(problem);
  for (const size_t i : {2, 3}) {
    auto sizes = spaced[i].sizes().vec();
    sizes.insert(sizes.begin() + 1, 2);
    spaced[i] =
        at::full(sizes, 77, spaced[i].options()).select(1, 1).copy_(spaced[i]).set_requires_grad(true);
  }
  const auto y = run(problem, spaced);
  expect_same_bits("y", y, expected);
  const auto found = gradients(y, {spaced[2], spaced[3]}, problem.dy);
  expect_same_bits(kExpertFfnGradients[2], found[0], expected_gradients[2]);
  expect_same_bits(kExpertFfnGradients[3], found[1], expected_gradients[3]);
}

TEST(ExpertFfn, GivesOnlyTheGradientsThatAreWanted) {
  const auto problem = make_expert_problem({.bias = true});
  const auto all = leaves(inputs_of(problem));
  const auto expected = gradients(run(problem, all), all, problem.dy);
  for (size_t i = 0; i < all.size(); ++i) {
    auto inputs = inputs_of(problem);
    inputs[i] = leaf(inputs[i]);
    expect_same_bits(kExpertFfnGradients[i], gradients(run(problem, inputs), {inputs[i]}, problem.dy)[0],
                     expected[i]);
  }
}

TEST(ExpertFfn, RefusesWeightsThatChangedBeforeBackward) {
  const auto problem = make_expert_problem({});
  for (const size_t i : {0, 1, 2, 3}) {
    auto inputs = inputs_of(problem);
    inputs[0] = leaf(inputs[0]);
    inputs[i] = inputs[i].clone();
    inputs[(i + 1) % 4] = leaf(inputs[(i + 1) % 4]);
    const auto y = run(problem, inputs);
    inputs[i].mul_(2);
    const auto message = error_of([&] { gradients(y, {inputs[(i + 1) % 4]}, problem.dy); });
    EXPECT_NE(message.find("modified by an inplace operation"), std::string::npos)
        << kExpertFfnGradients[i] << ": " << message;
  }
}

TEST(ExpertFfn, RefusesDoubleBackward) {
  const auto problem = make_expert_problem({});
  const auto inputs = leaves(inputs_of(problem));
  const auto y = run(problem, inputs);
  EXPECT_EQ(
      error_of([&] { gradients(y, inputs, problem.dy, /*create_graph=*/true); }),
      "[expert_ffn] expected a first backward, got create_graph=True: double backward is not supported");
}

TEST(ExpertRows, LeavesRowsOfAbsentExpertsAlone) {
  auto problem = make_expert_problem({});
  problem.weights.place_of_expert = at::tensor({0, -1, 2, -1}, kInt32);
  const auto all = at::full({problem.plan.max_rows(), 37}, 77.0F),
             hidden = at::full({problem.plan.max_rows(), 38}, 77.0F);
  ops::expert_rows(problem.x, problem.plan, problem.weights, all, hidden);
  const auto* offset = problem.plan.expert_offset.const_data_ptr<int32_t>();
  for (int64_t expert = 0; expert < 4; ++expert) {
    const int64_t count = offset[expert + 1] - offset[expert];
    ASSERT_GT(count, 0);
    const bool absent = expert % 2 == 1;
    EXPECT_EQ(all.narrow(0, offset[expert], count).eq(77).all().item<bool>(), absent);
    EXPECT_EQ(hidden.narrow(0, offset[expert], count).eq(77).all().item<bool>(), absent);
  }
}

TEST(ExpertFfnBackwardWeight, AddsIntoGivenTensors) {
  for (const auto& precision : cpu_precisions()) {
    SCOPED_TRACE(precision.name);
    check_added_weight_gradients(make_expert_problem({.dtype = precision.dtype, .bias = true}),
                                 precision.tolerance);
  }
}

TEST(ExpertFfnBackwardWeight, OverwritesPlacesWithoutAnExpert) {
  for (const auto& precision : cpu_precisions()) {
    for (const bool absent_expert : {false, true}) {
      SCOPED_TRACE(precision.name + (absent_expert ? " absent expert" : ""));
      check_overwritten_weight_gradients(with_free_place(
          make_expert_problem({.dtype = precision.dtype, .bias = true, .num_tokens = 60}), absent_expert));
    }
  }
}

}  // namespace
}  // namespace motley::test
