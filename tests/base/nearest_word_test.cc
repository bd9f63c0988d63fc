#include <gtest/gtest.h>

#include "motley/base/config_values.h"

namespace motley {
namespace {

TEST(NearestWord, FindsTypingMistakes) {
  const std::vector<std::string> keys = {"learning_rate", "warmup_steps", "steps"};
  EXPECT_EQ(nearest_word("lerning_rate", keys), "learning_rate");
  EXPECT_EQ(nearest_word("learning_rates", keys), "learning_rate");
  EXPECT_EQ(nearest_word("step", keys), "steps");
}

TEST(NearestWord, OffersNothingFarAway) {
  EXPECT_EQ(nearest_word("dropout", {"learning_rate", "steps"}), "");
  EXPECT_EQ(nearest_word("x", {}), "");
}

TEST(NearestWord, TiesGoToTheFirst) { EXPECT_EQ(nearest_word("bat", {"cat", "hat"}), "cat"); }

}  // namespace
}  // namespace motley
