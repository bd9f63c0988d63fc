#include "motley/infer/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
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

TokenStore store_of(const at::Tensor& tokens) {
  TokenStore store(1000);
  store.append({tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + tokens.numel()});
  return store;
}

// Loss of the predictions of tokens begin + 1 .. end - 1, one token at a time from whole-prompt logits.
double reference(CausalLm& model, const at::Tensor& tokens, int64_t begin, int64_t end) {
  const auto part = tokens.slice(0, begin, end - 1);
  std::vector<int64_t> ids(part.const_data_ptr<int64_t>(), part.const_data_ptr<int64_t>() + part.numel());
  const auto logits = prompt_logits(model, {ids})[0].to(at::kDouble);
  return at::nll_loss(at::log_softmax(logits, 1), tokens.slice(0, begin + 1, end), {}, at::Reduction::Sum)
      .item<double>();
}

TEST(Evaluate, AveragesOverWindowsIncludingTheShortLastOne) {
  at::manual_seed(1);
  const auto model = small_model();
  const auto tokens = at::randint(50, {24}, at::kLong);
  EvaluationOptions options;
  options.window = 10;
  options.batch_windows = 2;
  std::vector<int64_t> seen;
  const auto result = evaluate(*model, store_of(tokens), options, [&](int64_t done, int64_t of) {
    EXPECT_EQ(of, 3);
    seen.push_back(done);
  });
  EXPECT_EQ(result.num_tokens, 23);
  const double expected = (reference(*model, tokens, 0, 11) + reference(*model, tokens, 10, 21) +
                           reference(*model, tokens, 20, 24)) /
                          23;
  EXPECT_NEAR(result.loss, expected, 1e-5);
  EXPECT_EQ(seen, (std::vector<int64_t>{0, 2, 3}));
  ASSERT_EQ(result.ffn_experts_per_token.size(), 3u);
  for (const double experts : result.ffn_experts_per_token) {
    EXPECT_GT(experts, 0);
    EXPECT_LE(experts, 2);
  }
}

TEST(Evaluate, SpreadsAFewWindowsEvenly) {
  const auto model = small_model();
  const auto tokens = at::randint(50, {41}, at::kLong);
  EvaluationOptions options;
  options.window = 10;
  options.max_windows = 2;
  const auto result = evaluate(*model, store_of(tokens), options);
  EXPECT_EQ(result.num_tokens, 20);
  EXPECT_NEAR(result.loss, (reference(*model, tokens, 0, 11) + reference(*model, tokens, 20, 31)) / 20, 1e-5);
}

TEST(Evaluate, TakesAPartOfAStore) {
  const auto model = small_model();
  const auto tokens = at::randint(50, {41}, at::kLong);
  const TokenStore store = store_of(tokens);
  const auto result = evaluate(*model, TokenSpan(store, 7, 20), {.window = 6});
  EXPECT_EQ(result.num_tokens, 12);
  EXPECT_NEAR(result.loss, (reference(*model, tokens, 7, 14) + reference(*model, tokens, 13, 20)) / 12, 1e-5);
}

TEST(Evaluate, EndsWhenInterrupted) {
  const auto model = small_model();
  int asked = 0;
  EvaluationOptions options{.window = 10, .batch_windows = 1, .interrupted = [&] { return ++asked == 3; }};
  int64_t seen = 0;
  const auto count = [&](int64_t done, int64_t) { seen = done; };
  EXPECT_TRUE(evaluate(*model, store_of(at::zeros({41}, at::kLong)), options, count).interrupted);
  EXPECT_EQ(seen, 2);
  asked = 3;
  EXPECT_FALSE(evaluate(*model, store_of(at::zeros({41}, at::kLong)), options, count).interrupted);
}

TEST(Evaluate, NamesTheWindowsWithWhichTheLossStopsBeingFinite) {
  const auto model = small_model();
  model->visit([](const std::string& name, at::Tensor& tensor, TensorRole) {
    if (name == "model.embed_tokens.weight") tensor[7].fill_(std::numeric_limits<double>::quiet_NaN());
  });
  auto tokens = at::zeros({41}, at::kLong);
  tokens[25] = 7;
  const auto result = evaluate(*model, store_of(tokens), {.window = 10, .batch_windows = 1});
  EXPECT_TRUE(std::isnan(result.loss));
  ASSERT_EQ(result.not_finite.size(), 1u);
  EXPECT_EQ(result.not_finite[0].begin, 20);
  EXPECT_EQ(result.not_finite[0].length, 10);
}

TEST(Evaluate, PromptLogitsAreTheGoldenOnes) {
  const GoldenModel golden;
  const auto model = load_model(golden.folder);
  const auto logits = prompt_logits(*model, golden.prompts);
  ASSERT_EQ(logits.size(), golden.prompts.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    EXPECT_EQ(logits[i].scalar_type(), at::kFloat);
    EXPECT_LT(golden.error(i, logits[i]), 1e-4);
  }
}

TEST(Evaluate, RefusesWhatTheModelCannotTake) {
  const auto model = small_model();
  const auto error = [&](const at::Tensor& tokens, const EvaluationOptions& options) {
    return user_error([&] { evaluate(*model, store_of(tokens), options); });
  };
  EXPECT_THAT(error(at::zeros({1}, at::kLong), {}), HasSubstr("2 tokens"));
  EXPECT_THAT(error(at::full({4}, 50, at::kLong), {}),
              AllOf(HasSubstr("vocabulary of 50"), HasSubstr("found 50")));
  EXPECT_THAT(error(at::zeros({9}, at::kLong), {.window = 65}), HasSubstr("64 positions"));
  EXPECT_THAT(error(at::zeros({9}, at::kLong), {.batch_windows = 0}), HasSubstr("batch_windows"));
  EXPECT_THAT(error(at::zeros({9}, at::kLong), {.max_windows = -1}), HasSubstr("max_windows"));
}

}  // namespace
}  // namespace motley
