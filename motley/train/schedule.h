// The learning rate of each step.
#pragma once

#include "motley/train/run_config.h"

namespace motley {

// step counts from 0. Linear warm-up that reaches learning_rate in step warmup_steps - 1, then a half
// cosine that reaches min_learning_rate in the last step, or a constant.
double learning_rate(const TrainOptions& train, int64_t step);

}  // namespace motley
