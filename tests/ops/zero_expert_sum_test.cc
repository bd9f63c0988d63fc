#include "tests/support/zero_expert_sum.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "benchmarks/memory_meter.h"
#include "motley/ops/expert_ffn.h"
#include "motley/ops/tensor_weights.h"
#include "tests/support/gradients.h"

namespace motley::test {
namespace {

TEST(ZeroExpertSum, AgreesWithTheDefinition) {
  for (const auto& precision : cpu_precisions()) {
    for (const auto spread : all_spreads()) {
      for (const auto& kinds : kinds_to_test()) {
        SCOPED_TRACE(precision.name + " " + name_of(spread));
        const auto problem = make_expert_problem({.dtype = precision.dtype, .spread = spread, .top_k = 4});
        check_zero_expert_sum(problem, kinds, precision.dtype, precision.tolerance, at::kCPU);
      }
    }
  }
}

// As without zero-computation experts: hidden, and nothing of the tokens' size.
TEST(ZeroExpertSum, KeepsHiddenOnly) {
  const auto problem = make_expert_problem(
      {.dtype = at::kBFloat16, .num_tokens = 64, .top_k = 1, .width = 512, .expert_width = 16});
  const ZeroExperts experts = {kinds_to_test()[0], leaf(random_values({1, 512}, at::kBFloat16, 1)),
                               leaf(random_values({1, 2, 512}, at::kBFloat16, 2))};
  const auto source = std::make_shared<ops::TensorWeights>(problem.weights);
  const int64_t num_rows = problem.plan.max_rows(), hidden_bytes = num_rows * 2 * 16 * 2,
                row_bytes = num_rows * 512 * 2;
  ASSERT_LT(num_rows, 60);

  const auto x = leaf(problem.x);
  const bench::MemoryMeter meter;
  const auto y = ops::expert_ffn_with_zero_experts(x, problem.slots, problem.gate_weights, problem.plan,
                                                   source, experts);
  const auto y_bytes = static_cast<int64_t>(y.nbytes());
  EXPECT_EQ(meter.live_bytes() - y_bytes, hidden_bytes);
  EXPECT_LT(meter.peak_bytes(), y_bytes + hidden_bytes + row_bytes + y_bytes / 2);
}

TEST(ZeroExpertSum, NamesWhatIsWrong) {
  const auto p = make_expert_problem({});
  const ZeroExperts copies = {{ZeroExpertKind::kCopy, ZeroExpertKind::kCopy}, {}, {}};
  const auto rows = at::zeros({p.plan.max_rows(), 37});
  const auto sum_error = [&](const at::Tensor& of_rows, const at::Tensor& slots, const ZeroExperts& experts,
                             at::ScalarType dtype) {
    return error_of([&] {
      ops::token_sum_with_zero_experts(of_rows, p.plan, p.x, slots, p.gate_weights, experts, dtype);
    });
  };
  EXPECT_EQ(sum_error(rows, p.slots, copies, at::kDouble),
            "[token_sum_with_zero_experts] expected out_dtype Float or that of x, Float, got Double");
  EXPECT_EQ(sum_error(rows.to(at::kBFloat16), p.slots, copies, at::kFloat),
            "[token_sum_with_zero_experts] expected rows of dtype Float, got BFloat16");
  EXPECT_EQ(sum_error(rows, p.slots.add(1), copies, at::kFloat),
            "[token_sum_with_zero_experts] expected values of slots from -1 to 5, got 6");
  EXPECT_EQ(
      sum_error(rows, p.slots, {{ZeroExpertKind::kConstant, ZeroExpertKind::kCopy}, {}, {}}, at::kFloat),
      "[token_sum_with_zero_experts] expected constant [Z_constant, D] for 1 constant experts, got none");
  const ZeroExperts learning = {
      {ZeroExpertKind::kConstant, ZeroExpertKind::kCopy}, leaf(at::zeros({1, 37})), at::zeros({1, 2, 37})};
  EXPECT_EQ(
      sum_error(rows, p.slots, learning, at::kFloat),
      "[token_sum_with_zero_experts] expected tensors that require no gradient (or gradients disabled): it "
      "has no derivative, got one of sizes [1, 37] that requires it");
}

}  // namespace
}  // namespace motley::test
