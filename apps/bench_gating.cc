// `motley bench gating`: dynamic gating against the padded static layer.
#include <cstdio>
#include <iostream>
#include <memory>
#include <vector>

#include "apps/bench_commands.h"
#include "apps/machine.h"
#include "benchmarks/layers/gating.h"
#include "motley/base/error.h"
#include "motley/base/format.h"

namespace motley {
namespace {

struct GatingBenchArguments {
  BenchArguments common;
  bench::GatingBench bench;
  std::string dtype = "fp32";
};

void run(const GatingBenchArguments& arguments) {
  bench::GatingBench bench = arguments.bench;
  bench.dtype = arguments.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  const double needed = bench::static_layer_bytes(bench);
  const auto available = static_cast<double>(examine_machine().memory_available);
  if (needed > available) {
    throw UserError(Mistake{
        "--tokens", concat("a static layer that fits into the ", format_bytes(available), " available"),
        concat("one of ", format_bytes(needed)), "take fewer tokens or a smaller --capacity"});
  }
  arguments.common.use_threads();
  nlohmann::json setting = bench_setting(arguments.common);
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
  line("static", result.statically, result.static_bytes);
  line("dynamic", result.dynamically, result.dynamic_bytes);
  std::fprintf(stderr,
               "  dynamic gating is %.1fx as fast in 1/%.0f of the memory; the static layer dropped %.0f of "
               "%ld assignments\n",
               speedup, result.static_bytes / result.dynamic_bytes, result.dropped,
               bench.tokens * bench.top_k);
  if (!arguments.common.json) return;
  setting.update({{"experts", bench.experts},
                  {"capacity", bench.capacity},
                  {"top_k", bench.top_k},
                  {"hidden", bench.hidden},
                  {"width", bench.width},
                  {"tokens", bench.tokens},
                  {"dtype", arguments.dtype},
                  {"waste_factor", result.waste},
                  {"static", timing_json(result.statically)},
                  {"dynamic", timing_json(result.dynamically)},
                  {"static_peak_bytes", result.static_bytes},
                  {"dynamic_peak_bytes", result.dynamic_bytes},
                  {"dropped", result.dropped},
                  {"speedup", speedup}});
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
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str();
  command->add_option("--dtype", arguments->dtype, "fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command->add_option("--seconds", arguments->bench.seconds, "How long to measure each of the two")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
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
