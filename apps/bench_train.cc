// `motley bench train`: how long a training step takes, and which part of the model takes it.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <vector>

#include "apps/bench_commands.h"
#include "benchmarks/train/training_step.h"
#include "motley/base/config_values.h"

namespace motley {
namespace {

struct TrainBenchArguments {
  BenchArguments common;
  std::string config = "configs/quickstart.json";
  std::vector<std::string> settings;
  double seconds = 10;
};

void print(const bench::TrainingStepResult& result, const nlohmann::json& setting) {
  double sum = 0;
  std::vector<std::pair<std::string, bench::PartTime>> parts(result.parts.begin(), result.parts.end());
  for (const auto& [name, time] : parts) sum += time.forward + time.backward;
  std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) {
    return a.second.forward + a.second.backward > b.second.forward + b.second.backward;
  });
  const auto tokens = static_cast<double>(result.tokens);
  std::fprintf(
      stderr,
      "%s kernels, %d threads: a step of %ld tokens takes %s, %.0f tokens/s, %.2f FFN experts a token\n",
      setting.at("kernels").get<std::string>().c_str(), setting.at("threads").get<int>(),
      static_cast<long>(result.tokens), format_timing(result.step).c_str(), tokens / result.step.median,
      result.ffn_experts_per_token);
  std::fprintf(stderr, "  processor time of all threads: %.2f ms\n", result.processor_seconds * 1e3);
  std::fprintf(stderr, "  %-26s %10s %10s %8s\n", "part", "forward ms", "backward ms", "share");
  for (const auto& [name, time] : parts) {
    std::fprintf(stderr, "  %-26s %10.2f %10.2f %7.1f %%\n", name.c_str(), time.forward * 1e3,
                 time.backward * 1e3, 100 * (time.forward + time.backward) / sum);
  }
}

nlohmann::json to_json(const bench::TrainingStepResult& result) {
  nlohmann::json parts = nlohmann::json::object();
  for (const auto& [name, time] : result.parts) {
    parts[name] = {{"forward_milliseconds", time.forward * 1e3},
                   {"backward_milliseconds", time.backward * 1e3}};
  }
  return {{"step", timing_json(result.step)},
          {"tokens", result.tokens},
          {"tokens_per_second", static_cast<double>(result.tokens) / result.step.median},
          {"processor_milliseconds", result.processor_seconds * 1e3},
          {"ffn_experts_per_token", result.ffn_experts_per_token},
          {"parts", parts}};
}

void run(const TrainBenchArguments& arguments) {
  nlohmann::json config = read_json_file(arguments.config);
  apply_settings(config, arguments.settings);
  apply_setting(config, "data.path=\"random tokens\"");
  apply_setting(config, "train.device=" + nlohmann::json(arguments.common.device).dump());
  const RunConfig parsed = parse_run_config(config, arguments.config);
  arguments.common.use_threads();
  nlohmann::json setting = bench_setting(arguments.common);
  const bench::TrainingStepResult result = bench::bench_training_step(parsed, arguments.seconds);
  print(result, setting);
  if (!arguments.common.json) return;
  setting.update(to_json(result));
  setting["config"] = arguments.config;
  setting["dtype"] = config.value("/train/dtype"_json_pointer, "fp32");
  std::cout << setting.dump() << std::endl;
}

}  // namespace

void add_bench_train(CLI::App& bench, std::function<void()>& action) {
  const auto arguments = std::make_shared<TrainBenchArguments>();
  CLI::App* command =
      bench.add_subcommand("train", "A training step of a configuration, by part of the model");
  command->add_option("CONFIG", arguments->config, "The run's configuration; its data is not read")
      ->capture_default_str();
  command
      ->add_option("--set", arguments->settings,
                   "KEY=VALUE changes a key of the configuration, as train.batch_size=4")
      ->allow_extra_args(false);
  add_seconds(*command, arguments->seconds, "How long to measure", 0.1);
  arguments->common.add_to(*command);
  command->footer(
      "A fresh model takes steps on random tokens: forward, backward, clipping, AdamW. Half of the time goes "
      "to\n"
      "whole steps (median, least, most), half to steps whose parts are clocked (means); 'other' is "
      "autograd, sums\n"
      "of gradients, residual additions and whatever no part claims. benchmarks/peers/train_step.py measures "
      "the\n"
      "same model in torch beside it.");
  command->callback([arguments, &action] { action = [arguments] { run(*arguments); }; });
}

}  // namespace motley
