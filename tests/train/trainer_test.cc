#include "motley/train/trainer.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>

#include "motley/base/error.h"
#include "motley/train/finite.h"
#include "tests/train/run_place.h"
#include "tests/train/tiny_lm.h"

namespace motley {
namespace {

RunConfig small_config() {
  RunConfig config;
  config.data.path = "x";
  config.data.sequence_length = 8;
  config.train.steps = 20;
  config.train.batch_size = 4;
  config.train.learning_rate = 0.01;
  return config;
}

TokenStore some_tokens() {
  TokenStore tokens(256);
  tokens.append(ByteTokenizer().encode(some_text(2000)));
  return tokens;
}

constexpr auto kNever = [] { return false; };

struct Bench {
  explicit Bench(const RunConfig& config, at::ScalarType dtype = at::kFloat)
      : model(dtype),
        tokens(some_tokens()),
        trainer(model, config, tokens, split_tokens(tokens.size(), 0.1)) {}
  TinyLm model;
  TokenStore tokens;
  Trainer trainer;
  MetricsWindow window{{2}};
};

TEST(Trainer, LowersTheLoss) {
  Bench bench(small_config());
  bench.trainer.step(0, bench.window, kNever);
  const double first = bench.window.mean_loss();
  EXPECT_NEAR(first, std::log(256.0), 0.3);
  for (int64_t step = 1; step < 20; ++step) {
    bench.window.clear();
    bench.trainer.step(step, bench.window, kNever);
  }
  EXPECT_LT(bench.window.mean_loss(), first - 0.3);
}

TEST(Trainer, AccumulatesToTheSameStepAsOneLargeBatch) {
  RunConfig large = small_config(), small = small_config();
  small.train.batch_size = 2;
  small.train.gradient_accumulation = 2;
  Bench a(large), b(small);
  a.model.auxiliary_weight = b.model.auxiliary_weight = 0.1;
  for (int64_t step = 0; step < 3; ++step) {
    a.trainer.step(step, a.window, kNever);
    b.trainer.step(step, b.window, kNever);
  }
  EXPECT_TRUE(at::allclose(a.model.block, b.model.block, 1e-3, 1e-5));
  EXPECT_NEAR(a.window.mean_loss(), b.window.mean_loss(), 1e-5);
  EXPECT_EQ(b.trainer.tokens_per_step(), 32);
}

TEST(Trainer, TellsGatesTheLoadOfTheWholeStepOnce) {
  RunConfig config = small_config();
  config.train.gradient_accumulation = 3;
  Bench bench(config);
  bench.trainer.step(0, bench.window, kNever);
  ASSERT_EQ(bench.model.gate.loads.size(), 1u);
  EXPECT_TRUE(at::equal(bench.model.gate.loads[0], at::full({3}, 96.0, at::kFloat)));
}

TEST(Trainer, AddsAuxiliaryLossesToTheGradientAndNotToTheReportedLoss) {
  Bench plain(small_config()), weighted(small_config());
  weighted.model.auxiliary_weight = 100.0;
  plain.trainer.step(0, plain.window, kNever);
  weighted.trainer.step(0, weighted.window, kNever);
  EXPECT_EQ(plain.window.mean_loss(), weighted.window.mean_loss());
  EXPECT_FALSE(at::equal(plain.model.block, weighted.model.block));
  EXPECT_GT(weighted.window.metrics()["losses"]["balance"].get<double>(), 1.0);
}

TEST(Trainer, ChangesNothingWhenInterrupted) {
  RunConfig config = small_config();
  config.train.gradient_accumulation = 3;
  Bench bench(config), undisturbed(config);
  int asked = 0;
  const auto second_time = [&] { return ++asked == 2; };
  EXPECT_FALSE(bench.trainer.step(0, bench.window, second_time));
  EXPECT_EQ(bench.window.steps(), 0);
  EXPECT_TRUE(bench.trainer.step(0, bench.window, kNever));
  undisturbed.trainer.step(0, undisturbed.window, kNever);
  EXPECT_TRUE(at::equal(bench.model.block, undisturbed.model.block));
  EXPECT_EQ(bench.window.mean_loss(), undisturbed.window.mean_loss());
}

std::string divergence(Bench& bench) {
  try {
    bench.trainer.step(6, bench.window, kNever);
  } catch (const DivergedError& error) {
    return error.what();
  }
  return "";
}

TEST(Trainer, NamesStepAndBlockOfALossThatIsNotFinite) {
  Bench bench(small_config());
  bench.model.block_scale = std::numeric_limits<double>::infinity();
  const at::Tensor before = bench.model.head.detach().clone();
  const std::string error = divergence(bench);
  EXPECT_NE(error.find("step 7"), std::string::npos) << error;
  EXPECT_NE(error.find("output of model.layers.0.mlp"), std::string::npos) << error;
  EXPECT_TRUE(at::equal(bench.model.head, before));
}

TEST(Trainer, NamesAParameterThatIsNotFinite) {
  Bench bench(small_config());
  bench.model.head.detach()[5][3].fill_(std::numeric_limits<double>::quiet_NaN());
  EXPECT_NE(divergence(bench).find("parameter lm_head.weight"), std::string::npos);
}

TEST(Trainer, ClipsGradientsWhoseSquaresAreBeyondFp32) {
  Bench bench(small_config());
  bench.model.auxiliary_weight = 1e38;
  EXPECT_TRUE(bench.trainer.step(0, bench.window, kNever));
  EXPECT_GT(bench.window.metrics()["grad_norm"].get<double>(), 1e37);
  EXPECT_EQ(first_non_finite(bench.trainer.optimizer().parameters()), "");
}

TEST(FindNonFinite, NamesTheFirstGradientThatBackwardReaches) {
  TinyLm model;
  const auto parameters = trained_parameters(model);
  std::vector<at::Tensor> gradients(parameters.size());
  gradients[0] = at::full({256, 8}, NAN);
  gradients[1] = at::full({8, 8}, INFINITY);
  const WindowBatch batch = pack_windows(some_tokens(), {{0, 8}});
  EXPECT_EQ(find_non_finite(model, batch.inputs, {}, parameters, gradients),
            "the gradient of model.layers.0.mlp.weight is the first that is not finite");
}

TEST(Trainer, RefusesSequencesBeyondTheModelsPositions) {
  RunConfig config = small_config();
  config.data.sequence_length = 65;
  EXPECT_THROW(Bench bench(config), UserError);
}

}  // namespace
}  // namespace motley
