// Training on a GPU: the losses of the CPU, the same bits each time, and a run that goes on bit for bit.
#include <fstream>

#include "motley/models/registry.h"
#include "motley/train/train_run.h"
#include "tests/models/small_config.h"
#include "tests/support/gpu.h"
#include "tests/support/precision.h"
#include "tests/train/run_place.h"

namespace motley::test {
namespace {

using TrainingOnGpu = OnGpu;

RunConfig run_config(const RunPlace& place, at::ScalarType dtype) {
  RunConfig config;
  config.model = small_config();
  config.model["vocab_size"] = 256;
  config.data.path = place.write("text.txt", some_text(8000)).string();
  config.data.sequence_length = 32;
  config.train.steps = 12;
  config.train.batch_size = 4;
  config.train.gradient_accumulation = 2;
  config.train.learning_rate = 0.01;
  config.train.sample_tokens = 0;
  config.train.dtype = dtype;
  config.train.device = "cuda";
  config.train.log_every = 1;
  return config;
}

std::vector<at::Tensor> weights_of(const std::filesystem::path& model) {
  std::vector<at::Tensor> weights;
  load_model(model)->visit(
      [&](const std::string&, at::Tensor& tensor, TensorRole) { weights.push_back(tensor); });
  return weights;
}

void expect_same_weights(const std::filesystem::path& a, const std::filesystem::path& b) {
  const auto left = weights_of(a), right = weights_of(b);
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) expect_same_bits(std::to_string(i), left[i], right[i]);
}

TEST_F(TrainingOnGpu, FollowsTheCpu) {
  const RunPlace place;
  RunConfig config = run_config(place, at::kFloat);
  const auto gpu = train_run(config, place / "gpu");
  config.train.device = "cpu";
  const auto cpu = train_run(config, place / "cpu");
  EXPECT_NEAR(*gpu.validation_loss, *cpu.validation_loss, 5e-3);
  EXPECT_NEAR(*gpu.train_loss, *cpu.train_loss, 5e-3);
}

TEST_F(TrainingOnGpu, GivesTheSameBitsEachTimeAndGoesOnBitForBit) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const RunPlace place;
    RunConfig config = run_config(place, dtype);
    const auto first = train_run(config, place / "first"), second = train_run(config, place / "second");
    expect_same_weights(first.model, second.model);
    // Stopped by the clock after its first checkpoint, then continued without a limit.
    config.train.checkpoint_every = 5;
    const auto whole = train_run(config, place / "whole");
    config.train.max_minutes = 1e-9;
    train_run(config, place / "parts");
    config.train.max_minutes = 0;
    const auto parts = train_run(config, place / "parts");
    EXPECT_EQ(parts.step, 12);
    expect_same_weights(whole.model, parts.model);
  }
}

}  // namespace
}  // namespace motley::test
