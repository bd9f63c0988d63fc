#include "motley/train/train_run.h"

#include "motley/base/concat.h"
#include "motley/base/error.h"
#include "motley/base/log.h"
#include "motley/io/path_within.h"
#include "motley/train/training_run.h"

namespace motley {

using nlohmann::json;

json to_json(const TrainSummary& summary) {
  const auto or_null = [](const std::optional<double>& value) { return value ? json(*value) : json(); };
  return {{"run", summary.run.string()},
          {"model", summary.model.empty() ? json() : json(summary.model.string())},
          {"step", summary.step},
          {"steps", summary.steps},
          {"tokens", summary.tokens},
          {"seconds", summary.seconds},
          {"train_loss", or_null(summary.train_loss)},
          {"validation_loss", or_null(summary.validation_loss)},
          {"tokens_per_second", summary.tokens_per_second},
          {"ffn_experts_per_token", summary.ffn_experts_per_token},
          {"signal", summary.signal}};
}

TrainSummary train_run(const RunConfig& config, const std::filesystem::path& run) {
  const std::filesystem::path text = config.data.path;
  std::error_code error;
  if (std::filesystem::is_directory(text, error) && path_within(run, text)) {
    throw UserError(Mistake{run.string(), concat("a run's folder outside of the text in ", text.string()),
                            "one in it, whose files would be read as text", "choose another --out"});
  }
  const json configuration = to_json(config);
  RunFolder folder(run);
  folder.check(configuration);
  std::optional<TrainerState> state;
  if (folder.exists()) {
    // A new run makes its folder only once its text is read and its model made.
    folder.begin(configuration);
    state = folder.newest_checkpoint(configuration);
  }
  const bool over = state && state->ended && !more_to_do(config.train, *state);
  if (over && std::filesystem::exists(folder.model())) {
    log_info(folder.path().string(), ": this run is already finished");
    TrainSummary summary = summarise(folder, config.train, *state);
    summary.model = folder.model();
    return summary;
  }
  TrainingRun training(config, folder, std::move(state));
  // Up to here there is nothing to save, so that a signal may end the process at once, as while a text is
  // read.
  const StopSignal stop;
  return training.go(stop);
}

}  // namespace motley
