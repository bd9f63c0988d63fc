#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/bench_commands.h"
#include "apps/bench_operators.h"
#include "apps/commands.h"
#include "motley/base/concat.h"
#include "motley/ops/device.h"

namespace motley {
namespace {

void run_operators(const OperatorBench& bench, bool json) {
  const OperatorBenchResult result = bench_operators(bench);
  char line[160];
  std::snprintf(line, sizeof line, "%s kernels, %d threads, %s: peak %.1f GFLOP/s\n", result.kernels.c_str(),
                result.threads, bench.bf16 ? "bf16" : "fp32", result.peak / 1e9);
  std::cerr << line;
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& row : result.rows) {
    const double rate = row.flops / row.median;
    std::snprintf(line, sizeof line, "  %-34s %9.3f ms (%.3f to %.3f)  %7.1f GFLOP/s  %5.1f %% of peak\n",
                  row.name.c_str(), row.median * 1e3, row.least * 1e3, row.most * 1e3, rate / 1e9,
                  100 * rate / result.peak);
    std::cerr << line;
    rows.push_back({{"name", row.name},
                    {"milliseconds", row.median * 1e3},
                    {"least_milliseconds", row.least * 1e3},
                    {"most_milliseconds", row.most * 1e3},
                    {"flops_per_second", rate},
                    {"share_of_peak", rate / result.peak}});
  }
  if (!json) return;
  const nlohmann::json object = {{"kernels", result.kernels},
                                 {"threads", result.threads},
                                 {"dtype", bench.bf16 ? "bf16" : "fp32"},
                                 {"peak_flops_per_second", result.peak},
                                 {"operators", rows}};
  std::cout << object.dump() << std::endl;
}

}  // namespace

void add_bench_command(CLI::App& app, std::function<void()>& action) {
  struct Arguments {
    OperatorBench bench;
    std::string dtype = "fp32", device = "cpu";
    bool json = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* bench = app.add_subcommand("bench", "Measure speed on this machine");
  bench->require_subcommand(1);
  CLI::App* operators =
      bench->add_subcommand("operators", "The experts' operators against a loop over experts in at:: calls");
  const auto size = [&](const char* name, int64_t& value, const char* what) {
    operators->add_option(name, value, what)
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
        ->capture_default_str();
  };
  size("--tokens", arguments->bench.tokens, "Tokens in a batch");
  size("--hidden", arguments->bench.hidden, "Model width D");
  size("--width", arguments->bench.width, "Expert width F");
  size("--experts", arguments->bench.experts, "Experts");
  size("--top-k", arguments->bench.top_k, "Experts a token");
  operators->add_option("--dtype", arguments->dtype, "fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  operators
      ->add_option("--threads", arguments->bench.threads,
                   "Threads (default: MOTLEY_THREADS, or all processors)")
      ->check(CLI::Range(1, 4096));
  operators->add_option("--device", arguments->device, "Where to measure: cpu, cuda or cuda:<n>")
      ->capture_default_str();
  operators->add_flag("--json", arguments->json, "Print one JSON object on standard output");
  operators->footer(
      "Median, least and most time of SwiGLU experts on random tokens, with weights that no cache holds. "
      "The\n"
      "peak is measured first: the processor's fastest multiply-add in registers, or a large matrix "
      "product.");
  operators->callback([arguments, &action] {
    action = [arguments] {
      arguments->bench.bf16 = arguments->dtype == "bf16";
      arguments->bench.device = parse_device(arguments->device, "--device");
      run_operators(arguments->bench, arguments->json);
    };
  });
  add_bench_train(*bench, action);
  add_bench_zero_experts(*bench, action);
  add_bench_gating(*bench, action);
}

}  // namespace motley
