// A whole training run in its folder: starts it, or goes on where it was stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "motley/train/run_config.h"

namespace motley {

struct TrainSummary {
  std::filesystem::path run;
  std::filesystem::path model;  // empty when the run was stopped before its end
  int64_t step = 0, steps = 0;  // done, wanted
  int64_t tokens = 0;
  double seconds = 0;                     // over all restarts
  std::optional<double> train_loss;       // mean of the last line of metrics
  std::optional<double> validation_loss;  // over the whole validation text, at the end
  double tokens_per_second = 0;
  double ffn_experts_per_token = 0;
  int signal = 0;  // that stopped it, after a checkpoint was saved
};

nlohmann::json to_json(const TrainSummary& summary);

// Trains until the end, the time limit or a signal. The same call again goes on from the last checkpoint,
// bit for bit as if it had never stopped (with the same number of threads).
// Throws UserError (configuration, data, folder, disk) and DivergedError (naming the step, the layer and the
// last good checkpoint).
TrainSummary train_run(const RunConfig& config, const std::filesystem::path& run);

}  // namespace motley
