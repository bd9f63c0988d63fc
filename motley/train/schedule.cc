#include "motley/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace motley {

double learning_rate(const TrainOptions& train, int64_t step) {
  if (step < train.warmup_steps) {
    return train.learning_rate * static_cast<double>(step + 1) / static_cast<double>(train.warmup_steps);
  }
  if (train.schedule == Schedule::kConstant) return train.learning_rate;
  const auto decay_steps = static_cast<double>(std::max<int64_t>(1, train.steps - 1 - train.warmup_steps));
  const double done = std::min(1.0, static_cast<double>(step - train.warmup_steps) / decay_steps);
  const double share = 0.5 * (1 + std::cos(std::numbers::pi * done));
  return train.min_learning_rate + (train.learning_rate - train.min_learning_rate) * share;
}

}  // namespace motley
