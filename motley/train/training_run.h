// The loop of a training run: steps, lines of metrics, evaluations, samples, checkpoints, and its end.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "motley/base/progress.h"
#include "motley/models/causal_lm.h"
#include "motley/train/metrics_log.h"
#include "motley/train/report.h"
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
  // These are false when a signal ended them early; what they had not finished is then done after a restart.
  bool train(Progress& progress);
  bool after_step(Progress& progress);
  bool evaluate_validation(bool whole);
  bool sample();
  bool end();

  void open_records();
  void log_window();
  void save();
  void renew_report();
  void check_weights();
  [[noreturn]] void diverged(const std::string& what, const PackedBatch& batch);
  bool last_step() const { return state_.step == options_.steps; }
  bool validates() const { return data_.split.num_validation() > 0; }
  bool checkpoint_due() const;
  void update_time();
  std::string last_good() const;

  RunConfig config_;
  const TrainOptions& options_;
  RunFolder& folder_;
  TrainerState state_;
  RunData data_;
  std::vector<int64_t> prompt_;  // of the samples
  std::unique_ptr<CausalLm> model_;
  int64_t num_parameters_ = 0;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<RunReport> report_;
  MetricsWindow window_;
  int64_t saved_step_ = -1;
  double clock_ = 0, reported_ = 0;
  std::function<bool()> interrupted_;
};

// Whether steps are left that the time limit allows.
bool more_to_do(const TrainOptions& options, const TrainerState& state);

// What the summary of `state` says; model and signal are left empty.
TrainSummary summarise(const RunFolder& folder, const TrainOptions& options, const TrainerState& state);

}  // namespace motley
