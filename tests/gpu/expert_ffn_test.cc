// The feed-forward of experts on a GPU against the fp64 reference, for sizes that the fast kernels take and
// for those that they do not.
#include "motley/ops/expert_ffn.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "tests/support/gpu.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"
#include "tests/support/reference.h"
#include "tests/support/weight_gradients.h"

namespace motley::test {
namespace {

using ExpertFfnOnGpu = OnGpu;

at::Tensor run(const ExpertProblem& problem, const Tensors& inputs,
               std::optional<at::ScalarType> out_dtype = {}) {
  return ops::expert_ffn(inputs[0], inputs[1], problem.plan, weights_of(inputs, problem.weights), out_dtype);
}

// Forward and all gradients, twice with the same bits.
void check(const ExpertProblem& problem, double tolerance) {
  const auto gpu = on_gpu(problem);
  const auto inputs = leaves(inputs_of(gpu)), cpu_inputs = leaves(inputs_of(problem));
  const auto y = run(gpu, inputs);
  const auto expected = reference_expert_ffn(cpu_inputs[0], cpu_inputs[1], problem.slots,
                                             weights_of(cpu_inputs, problem.weights), problem.num_experts);
  EXPECT_EQ(y.scalar_type(), problem.x.scalar_type());
  expect_close("y", y, expected, tolerance);
  // Without gradients a few tokens take kernels of their own.
  expect_close("y without gradients", run(gpu, inputs_of(gpu)), expected, tolerance);
  const auto found = gradients(y, inputs, gpu.dy), again = gradients(run(gpu, inputs), inputs, gpu.dy);
  const auto wanted = gradients(expected, cpu_inputs, problem.dy.to(at::kDouble));
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_TRUE(found[i].defined()) << kExpertFfnGradients[i];
    EXPECT_EQ(found[i].scalar_type(), inputs[i].scalar_type()) << kExpertFfnGradients[i];
    const auto zeros = at::zeros(inputs[i].sizes(), at::kDouble);
    expect_close(kExpertFfnGradients[i], found[i], wanted[i].defined() ? wanted[i] : zeros, tolerance);
    expect_same_bits(kExpertFfnGradients[i], again[i], found[i]);
  }
}

TEST_F(ExpertFfnOnGpu, AgreesWithTheReferenceForEveryActivation) {
  for (const auto& precision : gpu_precisions()) {
    for (const auto kind : {ActivationKind::kSwiGlu, ActivationKind::kGeGlu, ActivationKind::kClampedSwiGlu,
                            ActivationKind::kGelu, ActivationKind::kRelu, ActivationKind::kSilu}) {
      for (const bool bias : {false, true}) {
        for (const int64_t width : {37, 72}) {
          SCOPED_TRACE(precision.name + " activation " + std::to_string(static_cast<int64_t>(kind)) +
                       (bias ? " bias" : "") + " width " + std::to_string(width));
          auto problem = make_expert_problem({.dtype = precision.dtype,
                                              .activation = kind,
                                              .bias = bias,
                                              .width = width,
                                              .expert_width = width == 37 ? 19 : 40});
          // Rounded to 16 bits a value near the limit may lie on its other side, where the slope is another.
          if (precision.dtype != at::kFloat) problem.weights.activation.limit = 100;
          check(problem, precision.tolerance);
        }
      }
    }
  }
}

TEST_F(ExpertFfnOnGpu, AgreesWithTheReferenceForEverySpread) {
  for (const auto& precision : gpu_precisions()) {
    for (const auto spread : all_spreads()) {
      for (const bool bias : {false, true}) {
        for (const int64_t width : {37, 64}) {
          SCOPED_TRACE(precision.name + " " + name_of(spread) + (bias ? " bias" : "") + " width " +
                       std::to_string(width));
          check(make_expert_problem({.dtype = precision.dtype,
                                     .spread = spread,
                                     .bias = bias,
                                     .num_tokens = 200,
                                     .width = width,
                                     .expert_width = width == 37 ? 19 : 96}),
                precision.tolerance);
        }
      }
    }
  }
}

TEST_F(ExpertFfnOnGpu, AgreesWithTheReferenceForEverySize) {
  struct Size {
    int64_t num_tokens, top_k, num_experts, width, expert_width;
  };
  for (const Size& size : {Size{1, 2, 4, 64, 48}, Size{7, 1, 1, 16, 16}, Size{900, 2, 3, 128, 96},
                           Size{150, 5, 9, 33, 70}, Size{5, 2, 3, 1, 1}, Size{64, 8, 40, 128, 64},
                           Size{200, 4, 8, 264, 136}, Size{200, 4, 8, 264, 520}, Size{200, 4, 8, 264, 648}}) {
    for (const auto& precision : gpu_precisions()) {
      SCOPED_TRACE(precision.name + " tokens " + std::to_string(size.num_tokens) + " width " +
                   std::to_string(size.width));
      check(make_expert_problem({.dtype = precision.dtype,
                                 .num_tokens = size.num_tokens,
                                 .top_k = size.top_k,
                                 .num_experts = size.num_experts,
                                 .width = size.width,
                                 .expert_width = size.expert_width}),
            precision.tolerance);
    }
  }
}

TEST_F(ExpertFfnOnGpu, TakesExpertsAtPlacesAndLeavesAbsentOnesOut) {
  for (const auto& precision : gpu_precisions()) {
    for (const int64_t width : {37, 64}) {
      SCOPED_TRACE(precision.name + " width " + std::to_string(width));
      auto problem = make_expert_problem(
          {.dtype = precision.dtype, .num_tokens = 60, .width = width, .expert_width = width});
      // Expert 1 is absent and place 1 is free.
      problem.weights.place_of_expert = at::tensor({3, -1, 0, 2}, at::TensorOptions().dtype(at::kInt));
      check(problem, precision.tolerance);
    }
  }
}

TEST_F(ExpertFfnOnGpu, TakesAnyLayout) {
  for (const auto& precision : gpu_precisions()) {
    for (const int64_t width : {37, 64}) {
      SCOPED_TRACE(precision.name + " width " + std::to_string(width));
      const auto problem = on_gpu(make_expert_problem(
          {.dtype = precision.dtype, .num_tokens = 60, .width = width, .expert_width = 32}));
      const auto inputs = leaves(inputs_of(problem));
      const auto expected = run(problem, inputs);
      const auto dy = at::full({1}, 0.25F, expected.options()).expand(expected.sizes());
      const auto expected_gradients = gradients(expected, inputs, dy.contiguous());
      for (const auto& layout : {strided, misaligned}) {
        auto other = inputs_of(problem);
        auto laid_out = problem;
        for (const size_t i : {0, 1}) other[i] = layout(other[i]);
        laid_out.plan = {layout(problem.plan.row_assignment), layout(problem.plan.expert_offset),
                         layout(problem.plan.token_rows)};
        expect_same_bits("y", run(laid_out, other), expected);
      }
      for (const auto& gradient : {dy, strided(dy), misaligned(dy)}) {
        const auto again = leaves(inputs_of(problem));
        const auto found = gradients(run(problem, again), again, gradient);
        for (size_t i = 0; i < found.size(); ++i) {
          expect_same_bits(kExpertFfnGradients[i], found[i], expected_gradients[i]);
        }
      }
      // Weights that are aligned to their elements only.
      auto other = inputs_of(problem);
      other[2] = misaligned(other[2]);
      other[3] = misaligned(other[3]);
      expect_close("y", run(problem, other), expected, precision.tolerance);
    }
  }
}

TEST_F(ExpertFfnOnGpu, GivesPartialSumsInFp32) {
  const auto problem = on_gpu(make_expert_problem({.dtype = at::kBFloat16, .width = 64, .expert_width = 32}));
  const auto inputs = leaves(inputs_of(problem));
  const auto y = run(problem, inputs, at::kFloat);
  EXPECT_EQ(y.scalar_type(), at::kFloat);
  expect_same_bits("rounded once", y.to(at::kBFloat16), run(problem, inputs));
  expect_close("without gradients", run(problem, inputs_of(problem), at::kFloat), y, 1.5e-2);
}

TEST_F(ExpertFfnOnGpu, AddsWeightGradientsIntoGivenTensors) {
  for (const auto& precision : gpu_precisions()) {
    for (const int64_t width : {37, 64}) {
      SCOPED_TRACE(precision.name + " width " + std::to_string(width));
      check_added_weight_gradients(
          on_gpu(make_expert_problem(
              {.dtype = precision.dtype, .bias = true, .width = width, .expert_width = 24})),
          precision.tolerance);
    }
  }
}

TEST_F(ExpertFfnOnGpu, OverwritesPlacesWithoutAnExpert) {
  for (const auto& precision : gpu_precisions()) {
    for (const int64_t width : {37, 64}) {
      for (const bool absent_expert : {false, true}) {
        SCOPED_TRACE(precision.name + " width " + std::to_string(width) +
                     (absent_expert ? " absent expert" : ""));
        const auto problem = with_free_place(make_expert_problem({.dtype = precision.dtype,
                                                                  .bias = true,
                                                                  .num_tokens = 60,
                                                                  .width = width,
                                                                  .expert_width = 24}),
                                             absent_expert);
        check_overwritten_weight_gradients(on_gpu(problem));
      }
    }
  }
}

}  // namespace
}  // namespace motley::test
