#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/option_checks.h"
#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/base/format.h"
#include "motley/base/log.h"
#include "motley/train/train_run.h"

namespace motley {
namespace {

struct TrainCommand {
  std::string config, out, data, device;
  std::vector<std::string> settings;
  bool json = false;
};

// An error about a key that a flag has set names the flag.
std::string name_flags(std::string message, const TrainCommand& command) {
  const auto say = [&](const std::string& key, const std::string& flag) {
    message = in_words(message, {{concat(command.config, ": ", key), flag}});
  };
  if (!command.device.empty()) say("train.device", "--device");
  for (const std::string& setting : command.settings) {
    const std::string key = setting.substr(0, setting.find('='));
    say(key, "--set " + key);
  }
  return message;
}

TrainSummary train(const TrainCommand& command, const nlohmann::json& config) {
  try {
    return train_run(parse_run_config(config, command.config), command.out);
  } catch (const UserError& error) {
    throw UserError(name_flags(error.what(), command));
  }
}

void run_train(const TrainCommand& command) {
  nlohmann::json json = read_json_file(command.config);
  apply_settings(json, command.settings);
  const bool has_place = json.is_object() && (json["data"].is_object() || json["data"].is_null());
  if (!command.data.empty() && has_place) json["data"]["path"] = command.data;  // any bytes, as paths are
  if (!command.device.empty()) apply_setting(json, "train.device=" + json_text(command.device));
  const TrainSummary summary = train(command, json);
  if (summary.validation_loss) {
    log_info("validation loss ", format_decimal(*summary.validation_loss, 4), " nats a token after ",
             summary.step, " steps, ", format_duration(summary.seconds));
  }
  if (!summary.model.empty()) {
    log_info("model: ", summary.model.string(), ", report: ", (summary.run / "report.html").string());
  }
  if (command.json) std::cout << json_text(to_json(summary)) << std::endl;
  if (summary.signal != 0) throw ExitWith{128 + summary.signal};
}

}  // namespace

void add_train_command(CLI::App& app, std::function<void()>& action) {
  const auto command = std::make_shared<TrainCommand>();
  CLI::App* train = app.add_subcommand("train", "Train a model on text, or go on with a run");
  train
      ->add_option("CONFIG", command->config,
                   "The run's configuration, a JSON file with the sections model, data and train")
      ->required();
  train
      ->add_option("--out", command->out, "The run's folder; holds a run of the same configuration or is new")
      ->check(not_empty("a folder for the run"))
      ->required();
  train->add_option("--data", command->data, "Text file, .gz file or folder of them; sets data.path")
      ->check(not_empty("a text file, a .gz file or a folder of them"));
  train->add_option("--device", command->device, "cpu, cuda or cuda:<n>; sets train.device")
      ->check(not_empty("cpu, cuda or cuda:<n>"));
  train
      ->add_option("--set", command->settings,
                   "KEY=VALUE changes a key of the configuration, as train.steps=100")
      ->allow_extra_args(false);
  train->add_flag("--json", command->json, "Print the result as one JSON object on standard output");
  train->footer(
      "The same command again goes on where the run was stopped, bit for bit as if it never had been.\n"
      "Ctrl-C and SIGTERM save a checkpoint first; the exit code is then 130 or 143. A run whose loss is no\n"
      "longer finite ends with exit code 1 and names the step, the layer and the last good checkpoint.\n"
      "RUN holds config.json, metrics.jsonl, report.html, checkpoints/step_<n>/ and at the end model/.\n"
      "docs/configuration.md lists every key. Example:\n"
      "  motley train configs/tinyshakespeare.json --data tinyshakespeare.txt.gz --out runs/shakespeare");
  train->callback([command, &action] { action = [command] { run_train(*command); }; });
}

}  // namespace motley
