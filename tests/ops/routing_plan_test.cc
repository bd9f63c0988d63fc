#include "motley/ops/routing_plan.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tests/support/expert_problem.h"
#include "tests/support/precision.h"
#include "tests/support/reference.h"

namespace motley::test {
namespace {

const auto kInt32 = at::TensorOptions().dtype(at::kInt);

void expect_same_plan(const RoutingPlan& actual, const RoutingPlan& expected) {
  expect_same_bits("row_assignment", actual.row_assignment, expected.row_assignment);
  expect_same_bits("expert_offset", actual.expert_offset, expected.expert_offset);
  expect_same_bits("token_rows", actual.token_rows, expected.token_rows);
}

TEST(RoutingPlan, SortsAssignmentsByExpertInOrder) {
  const auto slots = at::tensor({2, 0, -1, 2, 0, 1}, kInt32).view({3, 2});
  const auto plan = ops::routing_plan(slots, 3);
  expect_same_bits("row_assignment", plan.row_assignment, at::tensor({1, 4, 5, 0, 3}, kInt32));
  expect_same_bits("expert_offset", plan.expert_offset, at::tensor({0, 2, 3, 5}, kInt32));
  expect_same_bits("token_rows", plan.token_rows, at::tensor({3, 0, -1, 4, 1, 2}, kInt32).view({3, 2}));
  EXPECT_EQ(plan.num_tokens(), 3);
  EXPECT_EQ(plan.top_k(), 2);
  EXPECT_EQ(plan.num_experts(), 3);
  EXPECT_EQ(plan.max_rows(), 5);
}

TEST(RoutingPlan, AgreesWithTheReferenceForEverySpread) {
  for (const auto spread : all_spreads()) {
    SCOPED_TRACE(name_of(spread));
    const auto problem = make_expert_problem({.spread = spread, .num_tokens = 100, .top_k = 3});
    expect_same_plan(problem.plan, reference_plan(problem.slots, problem.num_experts));
  }
}

TEST(RoutingPlan, IsTheSameForAnyNumberOfThreads) {
  // Large enough for several chunks, with slots on both sides of the experts'.
  const auto slots = at::randint(-1, 11, {60000, 4}, kInt32);
  const auto expected = reference_plan(slots, 8);
  const int before = at::get_num_threads();
  for (const int threads : {1, 2, 3}) {
    SCOPED_TRACE(threads);
    at::set_num_threads(threads);
    expect_same_plan(ops::routing_plan(slots, 8), expected);
  }
  at::set_num_threads(before);
}

TEST(RoutingPlan, TakesStridedAndMisalignedSlots) {
  const auto problem = make_expert_problem({});
  for (const auto& slots : {strided(problem.slots), misaligned(problem.slots)}) {
    expect_same_plan(ops::routing_plan(slots, problem.num_experts), problem.plan);
  }
  const auto expanded = at::full({1, 2}, 1, kInt32).expand({5, 2});
  expect_same_plan(ops::routing_plan(expanded, 2), reference_plan(expanded, 2));
}

TEST(RoutingPlan, NamesWhatIsWrong) {
  const auto slots = at::full({4, 2}, 0, kInt32);
  EXPECT_EQ(error_of([&] { ops::routing_plan(slots.to(at::kLong), 2); }),
            "[routing_plan] expected slots of dtype Int (int32), got Long");
  EXPECT_EQ(error_of([&] { ops::routing_plan(slots.flatten(), 2); }),
            "[routing_plan] expected slots [T, K], got 1 dimensions");
  EXPECT_EQ(error_of([&] { ops::routing_plan(slots, -1); }),
            "[routing_plan] expected num_experts of at least 0, got -1");
}

}  // namespace
}  // namespace motley::test
