#include "motley/infer/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "motley/models/registry.h"
#include "tests/io/temporary_folder.h"
#include "tests/models/golden_model.h"
#include "tests/models/small_config.h"

namespace motley {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::unique_ptr<CausalLm> small_model() {
  nlohmann::json config = small_config();
  config["initializer_range"] = 0.3;
  return make_model(config, 11, at::kFloat);
}

TEST(Generate, GivesTheGoldenModelsGreedyTokens) {
  const GoldenModel golden;
  const auto model = load_model(golden.folder);
  GenerateOptions options;
  options.max_new_tokens = 24;
  const auto together = generate(*model, golden.prompts, options);
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    EXPECT_EQ(together[i].tokens, golden.greedy[i]) << i;
    EXPECT_EQ(generate(*model, {golden.prompts[i]}, options)[0].tokens, golden.greedy[i]) << i;
  }
}

TEST(Generate, StopsWhereItShould) {
  const auto model = small_model();
  GenerateOptions options;
  options.max_new_tokens = 12;
  const std::vector<int64_t> prompt = {1, 2, 3};
  const auto all = generate(*model, {prompt}, options)[0];
  EXPECT_EQ(all.tokens.size(), 12u);
  EXPECT_EQ(all.reason, StopReason::kMaxNewTokens);

  options.end_tokens = {all.tokens[4]};
  const auto ended = generate(*model, {prompt}, options)[0];
  EXPECT_EQ(ended.tokens.back(), all.tokens[4]);
  EXPECT_LE(ended.tokens.size(), 5u);
  EXPECT_EQ(ended.reason, StopReason::kEndOfSequence);
  options.end_tokens.clear();

  const auto stopped =
      generate(*model, {prompt, prompt}, options,
               [count = 0](size_t sequence, int64_t) mutable { return sequence != 1 || ++count < 3; });
  EXPECT_EQ(stopped[0].tokens, all.tokens);
  EXPECT_EQ(stopped[1].tokens, std::vector<int64_t>(all.tokens.begin(), all.tokens.begin() + 3));
  EXPECT_EQ(stopped[1].reason, StopReason::kCallback);

  options.max_new_tokens = 1000;
  const auto full = generate(*model, {std::vector<int64_t>(60, 1)}, options)[0];
  EXPECT_EQ(full.tokens.size(), 5u);  // positions 60 .. 63, and the one chosen from the last of them
  EXPECT_EQ(full.reason, StopReason::kMaxPositions);
  options.max_new_tokens = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(generate(*model, {std::vector<int64_t>(60, 1)}, options)[0].tokens, full.tokens);
  options.max_new_tokens = 0;
  EXPECT_TRUE(generate(*model, {prompt}, options)[0].tokens.empty());
}

TEST(Generate, StreamsWhatItReturns) {
  const auto model = small_model();
  GenerateOptions options;
  options.max_new_tokens = 6;
  options.sampling = {.temperature = 1.0, .seed = 5};
  std::vector<std::vector<int64_t>> streamed(2);
  const auto generated = generate(*model, {{1, 2}, {3}}, options, [&](size_t sequence, int64_t token) {
    streamed[sequence].push_back(token);
    return true;
  });
  EXPECT_EQ(streamed[0], generated[0].tokens);
  EXPECT_EQ(streamed[1], generated[1].tokens);
  // Sequence 1 draws from seed + 1, alone as in company.
  options.sampling.seed = 6;
  EXPECT_EQ(generate(*model, {{3}}, options)[0].tokens, generated[1].tokens);
}

TEST(Generate, RefusesPromptsThatTheModelCannotTake) {
  const auto model = small_model();
  const auto error = [&](const std::vector<int64_t>& prompt, GenerateOptions options = {}) {
    return user_error([&] { generate(*model, {{1}, prompt}, options); });
  };
  EXPECT_THAT(error({}), HasSubstr("prompt 1"));
  EXPECT_THAT(error({1, 50}), AllOf(HasSubstr("prompt 1, token 1"), HasSubstr("50")));
  EXPECT_THAT(error({-1}), HasSubstr("-1"));
  EXPECT_THAT(error(std::vector<int64_t>(65, 1)), AllOf(HasSubstr("64 positions"), HasSubstr("65")));
  GenerateOptions negative;
  negative.max_new_tokens = -1;
  EXPECT_THAT(error({1}, negative), HasSubstr("max_new_tokens"));
}

}  // namespace
}  // namespace motley
