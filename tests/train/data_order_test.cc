#include "motley/train/data_order.h"

#include <gtest/gtest.h>

#include <set>

#include "motley/base/error.h"

namespace motley {
namespace {

TEST(DataOrder, ReadsEveryWindowOnceAnEpoch) {
  const DataOrder order(7, 1000, 16);
  const int64_t windows = order.windows_per_epoch();
  EXPECT_EQ(windows, 61);
  std::set<int64_t> shifts;
  for (int64_t epoch = 0; epoch < 5; ++epoch) {
    std::set<int64_t> begins;
    for (int64_t i = 0; i < windows; ++i) begins.insert(order.begin(epoch * windows + i));
    ASSERT_EQ(static_cast<int64_t>(begins.size()), windows);
    EXPECT_GE(*begins.begin(), 0);
    EXPECT_LE(*begins.rbegin() + 16 + 1, 1000);  // the last target is inside
    for (const int64_t begin : begins) EXPECT_EQ((begin - *begins.begin()) % 16, 0);
    shifts.insert(*begins.begin());
  }
  EXPECT_GT(shifts.size(), 1u);
}

TEST(DataOrder, IsAFunctionOfSeedAndIndex) {
  const DataOrder a(7, 100'000, 32), b(7, 100'000, 32), c(8, 100'000, 32);
  int same = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(a.begin(i), b.begin(i));
    same += a.begin(i) == c.begin(i);
  }
  EXPECT_LT(same, 10);
}

TEST(DataOrder, MixesWell) {
  const DataOrder order(0, 1'000'000, 10);
  double sum = 0, following = 0;
  for (int64_t i = 0; i < 2000; ++i) {
    sum += static_cast<double>(order.begin(i));
    following += order.begin(i + 1) == order.begin(i) + 10;
  }
  EXPECT_NEAR(sum / 2000, 500'000, 30'000);
  EXPECT_LT(following, 5);
}

TEST(DataOrder, HandlesTheShortestText) {
  const DataOrder order(1, 17, 16);
  EXPECT_EQ(order.windows_per_epoch(), 1);
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(order.begin(i), 0);
  EXPECT_THROW(DataOrder(1, 16, 16), UserError);
}

TEST(MixSeed, DependsOnEveryArgument) {
  const std::set<uint64_t> seeds = {mix_seed(0, 0, 0), mix_seed(1, 0, 0), mix_seed(0, 1, 0),
                                    mix_seed(0, 0, 1), mix_seed(1, 1, 0), mix_seed(1, 0, 1),
                                    mix_seed(0, 1, 1)};
  EXPECT_EQ(seeds.size(), 7u);
}

}  // namespace
}  // namespace motley
