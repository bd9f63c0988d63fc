#include "motley/routing/select_top_k.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace motley {
namespace {

std::vector<int64_t> chosen(std::vector<float> row, int64_t k) {
  const at::Tensor result = select_top_k(at::tensor(row).view({1, -1}), k);
  return {result.const_data_ptr<int64_t>(), result.const_data_ptr<int64_t>() + k};
}

TEST(SelectTopK, LargestFirstAndLowerSlotFirstWhereEqual) {
  EXPECT_EQ(chosen({0.1f, 0.4f, 0.2f, 0.3f}, 2), (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(chosen({1, 2, 2, 1, 2}, 2), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(chosen({0, 0, 0}, 3), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(chosen({1, 1, 5}, 2), (std::vector<int64_t>{2, 0}));
}

TEST(SelectTopK, EqualsAStableSortOnManyRowsWithTies) {
  for (const int64_t k : {1, 2, 7, 12}) {
    const at::Tensor scores = at::randint(0, 6, {5000, 12}, at::kFloat);
    const at::Tensor sorted = std::get<1>(at::sort(scores, /*stable=*/true, 1, /*descending=*/true));
    EXPECT_TRUE(select_top_k(scores, k).equal(sorted.narrow(1, 0, k))) << "k = " << k;
  }
}

TEST(SelectTopK, TakesStridedScoresAndNoRows) {
  const at::Tensor scores = at::rand({8, 30}).t();
  EXPECT_TRUE(select_top_k(scores, 3).equal(select_top_k(scores.contiguous(), 3)));
  EXPECT_EQ(select_top_k(at::empty({0, 4}), 2).sizes(), (std::vector<int64_t>{0, 2}));
}

TEST(SelectTopK, GivesDistinctSlotsForNotANumber) {
  const float nan = std::nanf("");
  for (const auto& row : {std::vector<float>{nan, nan, nan}, {nan, 1, 2}, {1, nan, 2}, {2, 1, nan}}) {
    const auto slots = chosen(row, 2);
    EXPECT_EQ(std::set<int64_t>(slots.begin(), slots.end()).size(), 2u);
    for (const int64_t slot : slots) EXPECT_TRUE(slot >= 0 && slot < 3) << slot;
  }
}

TEST(SelectTopK, NamesWhatIsWrong) {
  EXPECT_THROW(select_top_k(at::rand({2, 3}), 4), c10::Error);
  EXPECT_THROW(select_top_k(at::rand({2, 3}), 0), c10::Error);
  EXPECT_THROW(select_top_k(at::rand({2, 3}, at::kDouble), 1), c10::Error);
  EXPECT_THROW(select_top_k(at::rand({3}), 1), c10::Error);
}

}  // namespace
}  // namespace motley
