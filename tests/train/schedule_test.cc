#include "motley/train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace motley {
namespace {

TrainOptions cosine() {
  TrainOptions train;
  train.steps = 111;
  train.warmup_steps = 10;
  train.learning_rate = 1.0;
  train.min_learning_rate = 0.2;
  return train;
}

TEST(Schedule, WarmsUpLinearly) {
  EXPECT_DOUBLE_EQ(learning_rate(cosine(), 0), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(cosine(), 4), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(cosine(), 9), 1.0);
}

TEST(Schedule, FallsAsACosineToTheMinimumInTheLastStep) {
  EXPECT_DOUBLE_EQ(learning_rate(cosine(), 10), 1.0);
  EXPECT_NEAR(learning_rate(cosine(), 60), 0.6, 1e-12);  // half way
  EXPECT_NEAR(learning_rate(cosine(), 35), 0.2 + 0.8 * 0.5 * (1 + std::sqrt(0.5)), 1e-12);
  EXPECT_DOUBLE_EQ(learning_rate(cosine(), 110), 0.2);
}

TEST(Schedule, StaysConstantAfterTheWarmUp) {
  TrainOptions train = cosine();
  train.schedule = Schedule::kConstant;
  EXPECT_DOUBLE_EQ(learning_rate(train, 1), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(train, 110), 1.0);
}

TEST(Schedule, HandlesARunOfOneStep) {
  TrainOptions train;
  train.steps = 1;
  train.learning_rate = 0.5;
  EXPECT_DOUBLE_EQ(learning_rate(train, 0), 0.5);
}

}  // namespace
}  // namespace motley
