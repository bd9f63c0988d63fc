#include "motley/train/step_memory.h"

#include <gtest/gtest.h>

namespace motley {
namespace {

TEST(StepMemory, CountsWhatEveryLayerKeepsAndTheLogits) {
  RunConfig config;
  config.data.sequence_length = 8;
  config.train.batch_size = 2;
  const ModelSize model{.vocab_size = 100, .hidden_size = 10, .num_layers = 3};
  EXPECT_EQ(least_step_bytes(config, model), 16 * (3 * 4 * 10 * 4 + 100 * 4));
  config.train.dtype = at::kBFloat16;
  EXPECT_EQ(least_step_bytes(config, model), 16 * (3 * 4 * 10 * 2 + 100 * 4));
  config.train.activation_checkpointing = true;
  EXPECT_EQ(least_step_bytes(config, model), 16 * (3 * 10 * 2 + 100 * 4));
}

}  // namespace
}  // namespace motley
