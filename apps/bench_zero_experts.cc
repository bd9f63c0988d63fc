// `motley bench zero-experts`: what MoE++'s experts without computation save.
#include <cstdio>
#include <iostream>
#include <memory>
#include <vector>

#include "apps/bench_commands.h"
#include "apps/option_checks.h"
#include "benchmarks/layers/expert_forward.h"
#include "motley/ops/device.h"

namespace motley {
namespace {

struct ZeroExpertsBenchArguments {
  BenchArguments common;
  bench::ExpertForwardBench bench;
  std::string dtype = "bf16";
};

void run(const ZeroExpertsBenchArguments& arguments) {
  bench::ExpertForwardBench bench = arguments.bench;
  bench.dtype = arguments.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  bench.device = parse_device(arguments.common.device, "--device");
  arguments.common.use_threads();
  nlohmann::json setting = bench_setting(arguments.common);
  std::fprintf(stderr, "%s kernels, %d threads, %s: %ld experts of %ld x %ld, %ld tokens, top-%ld\n",
               setting.at("kernels").get<std::string>().c_str(), setting.at("threads").get<int>(),
               arguments.dtype.c_str(), bench.experts, bench.hidden, bench.width, bench::num_tokens(bench),
               bench.top_k);
  std::fprintf(stderr, "  %5s %11s %10s %32s %32s %8s %7s %9s %8s\n", "tau", "FFN a token", "least rows",
               "vanilla", "MoE++", "speed-up", "theory", "of theory", "host, ms");
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& row : bench::bench_expert_forward(bench)) {
    std::fprintf(stderr, "  %5.2f %11.3f %10ld %32s %32s %7.2fx %6.2fx %7.1f %% %8.3f\n", row.tau,
                 row.ffn_experts_per_token, row.least_rows, format_timing(row.vanilla).c_str(),
                 format_timing(row.moe_plus_plus).c_str(), row.speedup, row.theory, 100 * row.share(),
                 row.host_median * 1e3);
    rows.push_back({{"tau", row.tau},
                    {"ffn_experts_per_token", row.ffn_experts_per_token},
                    {"least_rows", row.least_rows},
                    {"vanilla", timing_json(row.vanilla)},
                    {"moe_plus_plus", timing_json(row.moe_plus_plus)},
                    {"speedup", row.speedup},
                    {"host_milliseconds", row.host_median * 1e3},
                    {"theory", row.theory},
                    {"share_of_theory", row.share()}});
  }
  if (!arguments.common.json) return;
  setting["dtype"] = arguments.dtype;
  setting["tokens"] = bench::num_tokens(bench);
  setting["rows"] = rows;
  std::cout << setting.dump() << std::endl;
}

}  // namespace

void add_bench_zero_experts(CLI::App& bench, std::function<void()>& action) {
  const auto arguments = std::make_shared<ZeroExpertsBenchArguments>();
  CLI::App* command = bench.add_subcommand("zero-experts", "MoE++'s experts against a vanilla MoE's, by tau");
  add_size(*command, "--hidden", arguments->bench.hidden, "Model width D");
  add_size(*command, "--width", arguments->bench.width, "Expert width F");
  add_size(*command, "--experts", arguments->bench.experts, "Experts with a feed-forward network");
  add_size(*command, "--top-k", arguments->bench.top_k, "Choices a token");
  add_size(*command, "--constant-experts", arguments->bench.constant_experts,
           "Constant experts, beside one zero and one copy expert");
  add_size(*command, "--rows", arguments->bench.rows_per_expert,
           "Rows of an expert on average, at least; the number of tokens follows");
  command->add_option("--tokens", arguments->bench.tokens, "Tokens, instead of --rows")
      ->check(within(int64_t{1}, int64_t{1} << 24));
  command
      ->add_option("--tau", arguments->bench.taus,
                   "Load of an FFN expert over that of a zero-computation expert")
      ->check(within(0.01, 1.0))
      ->capture_default_str();
  command->add_option("--dtype", arguments->dtype, "fp32 or bf16")
      ->check(one_of({"fp32", "bf16"}))
      ->capture_default_str();
  add_seconds(*command, arguments->bench.seconds, "How long to measure each tau");
  arguments->common.add_to(*command);
  command->footer(
      "Expert forward: plan, experts, zero-computation experts and their sum; the router is left out, "
      "choices are\n"
      "drawn with odds of tau to 1. Theory is the ratio of measured assignments to experts with a "
      "feed-forward\n"
      "network. Both layers run in turn; times are median (least to most), on a GPU by its own clock with "
      "one\n"
      "forward handed over while another runs. The last column is what the host needs to hand one over.");
  command->callback([arguments, &action] { action = [arguments] { run(*arguments); }; });
}

}  // namespace motley
