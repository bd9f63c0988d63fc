// What a training run writes down: lines of metrics, evaluations, samples, its summary.
#include <numeric>

#include "motley/base/error.h"
#include "motley/base/log.h"
#include "motley/infer/evaluate.h"
#include "motley/infer/generate.h"
#include "motley/infer/packing.h"
#include "motley/train/finite.h"
#include "motley/train/schedule.h"
#include "motley/train/training_run.h"

namespace motley {
namespace {

using nlohmann::json;

constexpr uint64_t kSampleStream = 3;  // of mix_seed

}  // namespace

void TrainingRun::open_records() {
  metrics_ = std::make_unique<MetricsLog>(folder_.metrics(), state_.metrics_bytes);
  if (!metrics_->empty()) return;
  metrics_->write({{"kind", "run"},
                   {"step", 0},
                   {"parameters", num_parameters_},
                   {"num_experts", model_->num_experts()},
                   {"data", state_.data},
                   {"threads", state_.threads}});
}

void TrainingRun::log_window() {
  state_.last_window = window_.metrics();
  json line = state_.last_window;
  line["kind"] = "train";
  line["step"] = state_.step;
  line["tokens"] = state_.tokens;
  line["seconds"] = state_.seconds;
  line["learning_rate"] = learning_rate(options_, state_.step - 1);
  metrics_->write(line);
  window_.clear();
}

bool TrainingRun::evaluate_validation(bool whole) {
  EvaluationOptions evaluation;
  evaluation.window = config_.data.sequence_length;
  evaluation.batch_windows = options_.batch_size;
  if (!whole) evaluation.max_windows = options_.eval_tokens / config_.data.sequence_length;
  evaluation.interrupted = interrupted_;
  check_weights();
  const Evaluation result = evaluate(*model_, data_.validation(), evaluation);
  if (result.interrupted) return false;
  if (!result.not_finite.empty()) {
    diverged(concat("the validation loss is ", result.loss),
             pack_windows(data_.tokens, result.not_finite).inputs);
  }
  state_.validation_loss = result.loss;
  const bool all = whole || evaluation.max_windows == 0;
  if (all) state_.final_loss = result.loss;
  metrics_->write({{"kind", "eval"},
                   {"step", state_.step},
                   {"loss", result.loss},
                   {"tokens", result.num_tokens},
                   {"whole", all},
                   {"seconds", state_.seconds},
                   {"ffn_experts_per_token", result.ffn_experts_per_token}});
  return true;
}

bool TrainingRun::sample() {
  GenerateOptions generation;
  generation.max_new_tokens = options_.sample_tokens;
  generation.sampling.temperature = options_.sample_temperature;
  generation.sampling.seed = mix_seed(options_.seed, kSampleStream, static_cast<uint64_t>(state_.step));
  check_weights();
  std::vector<int64_t> seen = prompt_;
  const auto keep = [&](size_t, int64_t token) {
    seen.push_back(token);
    return !interrupted_();
  };
  std::vector<Generated> generated;
  try {
    generated = generate(*model_, {prompt_}, generation, keep);
  } catch (const NotFiniteError& error) {
    diverged(concat("in a sample ", error.what()), pack({seen}));
  }
  if (interrupted_()) return false;
  metrics_->write({{"kind", "sample"},
                   {"step", state_.step},
                   {"prompt", options_.sample_prompt},
                   {"text", data_.tokenizer->decode(generated.front().tokens)}});
  return true;
}

void TrainingRun::renew_report() {
  try {
    report_->write();
  } catch (const UserError& error) {
    log_warn("no new report: ", error.what());  // the training is worth more
  }
}

// Before anything is made of weights that the last update may have spoiled.
void TrainingRun::check_weights() {
  const std::string bad = first_non_finite(trainer_->optimizer().parameters());
  if (bad.empty()) return;
  throw DivergedError(concat("step ", state_.step, ": the update made ", bad, " not finite"));
}

void TrainingRun::diverged(const std::string& what, const PackedBatch& batch) {
  throw DivergedError(concat("step ", state_.step, ": ", what, "; ",
                             find_non_finite(*model_, batch, {}, trainer_->optimizer().parameters(), {})));
}

TrainSummary summarise(const RunFolder& folder, const TrainOptions& options, const TrainerState& state) {
  TrainSummary summary;
  summary.run = folder.path();
  summary.step = state.step;
  summary.steps = options.steps;
  summary.tokens = state.tokens;
  summary.seconds = state.seconds;
  summary.validation_loss = state.final_loss;
  if (!state.last_window.is_null()) {
    summary.train_loss = state.last_window.at("loss").get<double>();
    summary.tokens_per_second = state.last_window.at("tokens_per_second").get<double>();
    const auto layers = state.last_window.at("ffn_experts_per_token").get<std::vector<double>>();
    const double sum = std::accumulate(layers.begin(), layers.end(), 0.0);
    summary.ffn_experts_per_token = layers.empty() ? 0 : sum / static_cast<double>(layers.size());
  }
  return summary;
}

}  // namespace motley
