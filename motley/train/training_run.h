// The loop of a training run: steps, lines of metrics, evaluations, samples, checkpoints, and its end.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "motley/base/progress.h"
#include "motley/models/causal_lm.h"
#include "motley/train/metrics_log.h"
#include "motley/train/run_data.h"
#include "motley/train/run_folder.h"
#include "motley/train/stop_signal.h"
#include "motley/train/train_run.h"
#include "motley/train/trainer.h"

namespace motley {

class TrainingRun {
 public:
  TrainingRun(const RunConfig& config, RunFolder& folder, std::optional<TrainerState> state);
  // Trains from where the state is to the end, the time limit or a signal.
  TrainSummary go(const StopSignal& stop);

 private:
  void train(const StopSignal& stop, Progress& progress);
  void after_step(Progress& progress);
  void log_window();
  void evaluate_validation(bool whole);
  void sample();
  void save();
  void end();
  bool last_step() const { return state_.step == options_.steps; }
  bool checkpoint_due() const;
  void update_time();
  std::string last_good() const;

  RunConfig config_;
  const TrainOptions& options_;
  RunFolder& folder_;
  TrainerState state_;
  RunData data_;
  at::Tensor validation_;  // undefined: none
  std::unique_ptr<CausalLm> model_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<MetricsLog> metrics_;
  MetricsWindow window_;
  int64_t saved_step_ = -1;
  double clock_ = 0, reported_ = 0;
};

// Whether steps are left that the time limit allows.
bool more_to_do(const TrainOptions& options, const TrainerState& state);

// What the summary of `state` says; model and signal are left empty.
TrainSummary summarise(const RunFolder& folder, const TrainOptions& options, const TrainerState& state);

}  // namespace motley
