#include "motley/ops/routing_plan.h"

#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>

#include "tests/support/gpu.h"
#include "tests/support/precision.h"
#include "tests/support/reference.h"

namespace motley::test {
namespace {

using RoutingPlanOnGpu = OnGpu;
const auto kInt32 = at::TensorOptions().dtype(at::kInt);

// On a GPU the plan has room for every assignment; rows past the last are -1.
void check(const at::Tensor& slots, int64_t num_experts) {
  const auto plan = ops::routing_plan(slots.cuda(), num_experts);
  const auto expected = reference_plan(slots, num_experts);
  const int64_t num_rows = expected.max_rows();
  ASSERT_EQ(plan.max_rows(), slots.numel());
  expect_same_bits("rows", plan.row_assignment.narrow(0, 0, num_rows), expected.row_assignment);
  EXPECT_TRUE(plan.row_assignment.narrow(0, num_rows, slots.numel() - num_rows).eq(-1).all().item<bool>());
  expect_same_bits("expert_offset", plan.expert_offset, expected.expert_offset);
  expect_same_bits("token_rows", plan.token_rows, expected.token_rows);
}

TEST_F(RoutingPlanOnGpu, AgreesWithTheReference) {
  for (const auto spread : all_spreads()) {
    SCOPED_TRACE(name_of(spread));
    check(make_expert_problem({.spread = spread, .num_tokens = 100, .top_k = 3}).slots, 4);
  }
  for (const int64_t num_experts : {1, 8, 512, 1024}) {
    SCOPED_TRACE(num_experts);
    check(at::randint(-1, num_experts + 3, {20000, 4}, kInt32), num_experts);
  }
}

TEST_F(RoutingPlanOnGpu, SortsMoreExpertsThanTheKernelsCountAndNone) {
  check(at::randint(-1, 1600, {3000, 4}, kInt32), 1500);
  check(at::randint(-1, 4, {30, 4}, kInt32), 0);
}

}  // namespace
}  // namespace motley::test
