// What a training run writes down: lines of metrics, evaluations, samples, its summary.
#include <c10/core/GradMode.h>

#include <cmath>
#include <numeric>

#include "motley/base/error.h"
#include "motley/infer/evaluate.h"
#include "motley/infer/generate.h"
#include "motley/train/finite.h"
#include "motley/train/schedule.h"
#include "motley/train/training_run.h"

namespace motley {
namespace {

using nlohmann::json;

constexpr uint64_t kSampleStream = 3;  // of mix_seed

}  // namespace

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

void TrainingRun::evaluate_validation(bool whole) {
  EvaluationOptions evaluation;
  evaluation.window = config_.data.sequence_length;
  evaluation.batch_windows = options_.batch_size;
  if (!whole) evaluation.max_windows = options_.eval_tokens / config_.data.sequence_length;
  at::NoGradGuard no_grad;
  const Evaluation result = evaluate(*model_, validation_, evaluation);
  if (!std::isfinite(result.loss)) {
    throw DivergedError(concat("step ", state_.step, ": the validation loss is ", result.loss));
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
}

void TrainingRun::sample() {
  GenerateOptions generation;
  generation.max_new_tokens = options_.sample_tokens;
  generation.sampling.temperature = options_.sample_temperature;
  generation.sampling.seed = mix_seed(options_.seed, kSampleStream, static_cast<uint64_t>(state_.step));
  at::NoGradGuard no_grad;
  const auto prompt = data_.tokenizer->encode(options_.sample_prompt);
  const auto generated = generate(*model_, {prompt}, generation);
  metrics_->write({{"kind", "sample"},
                   {"step", state_.step},
                   {"prompt", options_.sample_prompt},
                   {"text", data_.tokenizer->decode(generated.front().tokens)}});
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
