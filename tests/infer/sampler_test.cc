#include "motley/infer/sampler.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "tests/io/temporary_folder.h"

namespace motley {
namespace {

using testing::HasSubstr;

std::map<int64_t, int> counts(const SamplingOptions& options, const at::Tensor& logits, int draws) {
  Sampler sampler(options);
  std::map<int64_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sampler.sample(logits)];
  return counts;
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  Sampler sampler({});
  EXPECT_EQ(sampler.sample(at::tensor({1.0f, 3.0f, 3.0f, 2.0f})), 1);
  EXPECT_EQ(sampler.sample(at::tensor({1.0f, 3.0f}).to(at::kBFloat16)), 1);
  EXPECT_EQ(sampler.sample(at::tensor({NAN, -1.0f, -2.0f})), 1);
}

TEST(Sampler, FollowsTheProbabilities) {
  const auto logits = at::tensor({std::log(0.5), std::log(0.3), std::log(0.2)}, at::kDouble);
  const auto found = counts({.temperature = 1.0, .seed = 1}, logits, 20000);
  EXPECT_NEAR(found.at(0), 10000, 400);
  EXPECT_NEAR(found.at(1), 6000, 400);
  // At half the temperature probabilities are squared: 25 : 9 : 4.
  const auto cold = counts({.temperature = 0.5, .seed = 1}, logits, 20000);
  EXPECT_NEAR(cold.at(0), 20000 * 25.0 / 38, 400);
  EXPECT_NEAR(cold.at(2), 20000 * 4.0 / 38, 300);
}

TEST(Sampler, TopKAndTopPCutTheTail) {
  const auto logits = at::tensor({std::log(0.1), std::log(0.4), std::log(0.2), std::log(0.3)}, at::kDouble);
  const auto two = counts({.temperature = 1.0, .top_k = 2}, logits, 7000);
  EXPECT_EQ(two.size(), 2u);
  EXPECT_NEAR(two.at(1), 4000, 300);
  // 0.4 + 0.3 reaches 0.65, and 0.4 alone reaches 0.4.
  EXPECT_EQ(counts({.temperature = 1.0, .top_p = 0.65}, logits, 2000).size(), 2u);
  EXPECT_EQ(counts({.temperature = 1.0, .top_p = 0.39}, logits, 2000).size(), 1u);
  // Of the two likeliest, 4/7 and 3/7, the first reaches half.
  EXPECT_EQ(counts({.temperature = 1.0, .top_k = 2, .top_p = 0.5}, logits, 2000).size(), 1u);
  EXPECT_EQ(counts({.temperature = 1.0, .top_k = 99}, logits, 4000).size(), 4u);
}

TEST(Sampler, SeedDecidesAll) {
  const auto logits = at::randn({50});
  const auto draw = [&](uint64_t seed) {
    Sampler sampler({.temperature = 1.0, .seed = seed});
    std::vector<int64_t> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(sampler.sample(logits));
    return tokens;
  };
  EXPECT_EQ(draw(3), draw(3));
  EXPECT_NE(draw(3), draw(4));
}

TEST(Sampler, RefusesOptionsOutOfRangeOrWithoutEffect) {
  const auto error = [](const SamplingOptions& options) {
    return user_error([&] { Sampler sampler(options); });
  };
  EXPECT_THAT(error({.temperature = -1}), HasSubstr("temperature"));
  EXPECT_THAT(error({.temperature = NAN}), HasSubstr("temperature"));
  EXPECT_THAT(error({.temperature = 1, .top_k = -1}), HasSubstr("top_k"));
  EXPECT_THAT(error({.temperature = 1, .top_p = 0}), HasSubstr("top_p"));
  EXPECT_THAT(error({.temperature = 1, .top_p = 1.1}), HasSubstr("top_p"));
  EXPECT_THAT(error({.top_k = 5}), HasSubstr("temperature"));
  EXPECT_THAT(error({.top_p = 0.5}), HasSubstr("temperature"));
}

TEST(Sampler, LogitsWithoutAFiniteLargestAreAnError) {
  Sampler sampler({});
  EXPECT_THROW(sampler.sample(at::full({3}, NAN)), NotFiniteError);
  EXPECT_THROW(sampler.sample(at::tensor({0.0f, std::numeric_limits<float>::infinity()})), NotFiniteError);
  EXPECT_THROW(sampler.sample(at::empty({0})), c10::Error);
}

}  // namespace
}  // namespace motley
