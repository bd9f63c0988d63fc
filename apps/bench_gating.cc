// `motley bench gating`: dynamic gating against the padded static layer.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <vector>

#include "apps/bench_commands.h"
#include "apps/machine.h"
#include "apps/option_checks.h"
#include "benchmarks/layers/gating.h"
#include "motley/base/error.h"
#include "motley/base/format.h"
#include "motley/ops/device.h"

namespace motley {
namespace {

struct GatingBenchArguments {
  BenchArguments common;
  bench::GatingBench bench;
  std::string dtype = "fp32";
  bool dynamic_only = false, batches = false;
};

// Both layers at growing batches, each up to its best.
void run_batches(const bench::GatingBench& bench, double available, nlohmann::json& setting) {
  double best[2] = {};
  for (const bool padded : {true, false}) {
    nlohmann::json rows = nlohmann::json::array();
    for (const auto& batch : bench::bench_batches(bench, padded, available)) {
      std::fprintf(stderr, "  %-8s %8ld tokens %32s %14s tokens/s   peak memory %s\n",
                   padded ? "static" : "dynamic", batch.tokens, format_timing(batch.timing).c_str(),
                   format_count(batch.tokens_per_second()).c_str(), format_bytes(batch.bytes).c_str());
      best[padded] = std::max(best[padded], batch.tokens_per_second());
      rows.push_back({{"tokens", batch.tokens},
                      {"time", timing_json(batch.timing)},
                      {"tokens_per_second", batch.tokens_per_second()},
                      {"peak_bytes", batch.bytes}});
    }
    setting[padded ? "static" : "dynamic"] = rows;
  }
  if (best[1] > 0) {
    setting["speedup_at_best_batch"] = best[0] / best[1];
    std::fprintf(stderr, "  at each one's best batch dynamic gating is %.1fx as fast\n", best[0] / best[1]);
  }
}

void run(const GatingBenchArguments& arguments) {
  bench::GatingBench bench = arguments.bench;
  bench.dtype = arguments.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  bench.device = parse_device(arguments.common.device, "--device");
  bench.static_too = !arguments.dynamic_only;
  const double needed = bench::static_layer_bytes(bench);
  const auto available = static_cast<double>(bench.device.is_cpu() ? examine_machine().memory_available
                                                                   : bench::free_memory(bench.device));
  if (bench.static_too && !arguments.batches && needed > available) {
    throw UserError(Mistake{
        "--tokens", concat("a static layer that fits into the ", format_bytes(available), " available"),
        concat("one of ", format_bytes(needed)),
        "take fewer tokens or a smaller --capacity, or --dynamic-only"});
  }
  arguments.common.use_threads();
  nlohmann::json setting = bench_setting(arguments.common);
  if (arguments.batches) {
    run_batches(bench, available, setting);
    if (arguments.common.json) std::cout << setting.dump() << std::endl;
    return;
  }
  const bench::GatingResult result = bench::bench_gating(bench);
  const double speedup = result.statically.median / result.dynamically.median;
  std::fprintf(
      stderr, "%s kernels, %d threads, %s: E %ld, C %g, K %ld, D %ld, F %ld, %ld tokens: waste factor %.1f\n",
      setting.at("kernels").get<std::string>().c_str(), setting.at("threads").get<int>(),
      arguments.dtype.c_str(), bench.experts, bench.capacity, bench.top_k, bench.hidden, bench.width,
      bench.tokens, result.waste);
  const auto line = [](const char* what, const bench::Timing& timing, double bytes) {
    std::fprintf(stderr, "  %-8s %36s   peak memory %s\n", what, format_timing(timing).c_str(),
                 format_bytes(bytes).c_str());
  };
  if (bench.static_too) line("static", result.statically, result.static_bytes);
  line("dynamic", result.dynamically, result.dynamic_bytes);
  if (bench.static_too)
    std::fprintf(
        stderr,
        "  dynamic gating is %.1fx as fast in 1/%.0f of the memory; the static layer dropped %.0f of "
        "%ld assignments\n",
        speedup, result.static_bytes / result.dynamic_bytes, result.dropped, bench.tokens * bench.top_k);
  if (!arguments.common.json) return;
  if (bench.static_too) {
    setting.update(
        {{"static", timing_json(result.statically)}, {"dropped", result.dropped}, {"speedup", speedup}});
  }
  setting.update({{"experts", bench.experts},
                  {"capacity", bench.capacity},
                  {"top_k", bench.top_k},
                  {"hidden", bench.hidden},
                  {"width", bench.width},
                  {"tokens", bench.tokens},
                  {"dtype", arguments.dtype},
                  {"waste_factor", result.waste},
                  {"dynamic", timing_json(result.dynamically)},
                  {"static_peak_bytes", result.static_bytes},
                  {"dynamic_peak_bytes", result.dynamic_bytes}});
  std::cout << setting.dump() << std::endl;
}

}  // namespace

void add_bench_gating(CLI::App& bench, std::function<void()>& action) {
  const auto arguments = std::make_shared<GatingBenchArguments>();
  CLI::App* command = bench.add_subcommand("gating", "Dynamic gating against a padded static MoE layer");
  add_size(*command, "--tokens", arguments->bench.tokens, "Tokens in a batch");
  add_size(*command, "--experts", arguments->bench.experts, "Experts E");
  add_size(*command, "--top-k", arguments->bench.top_k, "Experts a token");
  add_size(*command, "--hidden", arguments->bench.hidden, "Model width D");
  add_size(*command, "--width", arguments->bench.width, "Expert width F");
  command
      ->add_option("--capacity", arguments->bench.capacity,
                   "Places of an expert in the static layer, over tokens")
      ->check(within(1e-6, 1.0))
      ->capture_default_str();
  command->add_option("--dtype", arguments->dtype, "fp32 or bf16")
      ->check(one_of({"fp32", "bf16"}))
      ->capture_default_str();
  command->add_flag(
      "--batches", arguments->batches,
      "Double --tokens for each of the two until its throughput no longer rises or memory ends");
  command->add_flag("--dynamic-only", arguments->dynamic_only,
                    "Leave the static layer out, as for batches that it has no memory for");
  add_seconds(*command, arguments->bench.seconds, "How long to measure each of the two");
  arguments->common.add_to(*command);
  command->footer(
      "A whole layer's forward pass, router included, on random tokens; the same layer with moe_gating "
      "static is the\n"
      "padded one of GShard and fairseq. Peak memory is that of the pass, without weights and input. The "
      "waste\n"
      "factor is E C / K: what padding multiplies the experts' work by. The two models of the paper:\n"
      "  motley bench gating\n"
      "  motley bench gating --experts 128 --capacity 1");
  command->callback([arguments, &action] { action = [arguments] { run(*arguments); }; });
}

}  // namespace motley
