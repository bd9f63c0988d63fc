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
    BenchArguments common;
    OperatorBench bench;
    std::string dtype = "fp32";
  };
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* bench = app.add_subcommand("bench", "Measure speed on this machine");
  bench->require_subcommand(1);
  CLI::App* operators =
      bench->add_subcommand("operators", "The experts' operators against a loop over experts in at:: calls");
  add_size(*operators, "--tokens", arguments->bench.tokens, "Tokens in a batch");
  add_size(*operators, "--hidden", arguments->bench.hidden, "Model width D");
  add_size(*operators, "--width", arguments->bench.width, "Expert width F");
  add_size(*operators, "--experts", arguments->bench.experts, "Experts");
  add_size(*operators, "--top-k", arguments->bench.top_k, "Experts a token");
  operators->add_option("--dtype", arguments->dtype, "fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  arguments->common.add_to(*operators);
  operators->footer(
      "Median, least and most time of SwiGLU experts on random tokens, with weights that no cache holds. "
      "The\n"
      "peak is measured first: the processor's fastest multiply-add in registers, or a large matrix "
      "product.");
  operators->callback([arguments, &action] {
    action = [arguments] {
      arguments->bench.bf16 = arguments->dtype == "bf16";
      arguments->bench.device = parse_device(arguments->common.device, "--device");
      arguments->common.use_threads();
      run_operators(arguments->bench, arguments->common.json);
    };
  });
  add_bench_train(*bench, action);
  add_bench_zero_experts(*bench, action);
  add_bench_gating(*bench, action);
}

}  // namespace motley
