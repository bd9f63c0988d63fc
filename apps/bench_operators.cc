// `motley bench operators`: the experts' operators beside the floors that this machine sets them.
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <vector>

#include "apps/bench_commands.h"
#include "apps/option_checks.h"
#include "benchmarks/gpu_ceilings.h"
#include "benchmarks/operators/one_layer.h"
#include "motley/base/concat.h"
#include "motley/base/error.h"
#include "motley/ops/device.h"

namespace motley {
namespace {

using Measure = void(const bench::OperatorBench&, at::ScalarType);
const std::map<std::string, Measure*> kTables = {{"matmul", bench::bench_matmul},
                                                 {"ffn", bench::bench_ffn},
                                                 {"decode", bench::bench_decode},
                                                 {"scaling", bench::bench_scaling}};

constexpr const char* kSizes[] = {"--tokens", "--hidden", "--width", "--experts", "--top-k"};

struct OperatorsBenchArguments {
  BenchArguments common;
  std::string what = "layer";
  bench::OneLayer layer;
  std::vector<std::string> dtypes = {"fp32"};
  double seconds = 2;
};

nlohmann::json print(const bench::OperatorRow& row) {
  const std::string dtype = row.type == at::kFloat ? "fp32" : "bf16";
  std::fprintf(stderr, "  %-46s %s %32s %8.1f GFLOP/s %5.1f %% of peak", row.name.c_str(), dtype.c_str(),
               format_timing(row.time).c_str(), row.work.flops / row.time.median / 1e9,
               100 * row.share_of_peak());
  if (row.read > 0) {
    std::fprintf(stderr, " %7.1f GB/s %5.1f %% of %.1f", row.work.bytes / row.time.median / 1e9,
                 100 * row.share_of_read(), row.read / 1e9);
  }
  std::fprintf(stderr, " %5.1f %% of its floor %s\n", 100 * row.share(), row.remark.c_str());
  nlohmann::json object = timing_json(row.time);
  object.update({{"name", row.name},
                 {"dtype", dtype},
                 {"flops_per_second", row.work.flops / row.time.median},
                 {"share_of_peak", row.share_of_peak()},
                 {"bytes_per_second", row.work.bytes / row.time.median},
                 {"share_of_read", row.share_of_read()},
                 {"share_of_floor", row.share()},
                 {"remark", row.remark}});
  return object;
}

void run(const OperatorsBenchArguments& arguments) {
  const bench::OneLayer& layer = arguments.layer;
  if (layer.top_k > layer.experts) {
    throw UserError(
        Mistake{"--top-k", concat("at most --experts, ", layer.experts), concat(layer.top_k), ""});
  }
  const bool tables = arguments.what != "layer";
  if (tables && !layer.device.is_cpu()) {
    throw UserError(Mistake{"--device", concat("cpu for ", arguments.what), arguments.common.device, ""});
  }
  arguments.common.use_threads();
  const c10::AutoGradMode grad(false);
  nlohmann::json setting = bench_setting(arguments.common);
  nlohmann::json rows = nlohmann::json::array();
  const nlohmann::json& ceilings = setting["ceilings"];
  const auto ceiling = [&](const char* name) { return ceilings.is_null() ? 0.0 : ceilings.value(name, 0.0); };
  bench::OperatorBench bench{ceiling("fp32"), ceiling("bf16"), ceiling("read"), arguments.seconds,
                             [&](const bench::OperatorRow& row) { rows.push_back(print(row)); }};
  if (!layer.device.is_cpu()) bench.read = bench::gpu_read_bandwidth(layer.device);
  std::fprintf(stderr, "%s kernels, %d threads\n", setting.at("kernels").get<std::string>().c_str(),
               at::get_num_threads());
  for (const std::string& dtype : arguments.dtypes) {
    const at::ScalarType type = dtype == "bf16" ? at::kBFloat16 : at::kFloat;
    double& peak = type == at::kFloat ? bench.fp32 : bench.bf16;
    if (peak == 0) peak = bench::product_peak(type, layer.device);
    tables ? kTables.at(arguments.what)(bench, type) : bench::bench_one_layer(bench, type, layer);
  }
  if (!arguments.common.json) return;
  setting["operators"] = rows;
  std::cout << setting.dump() << std::endl;
}

}  // namespace

void add_bench_operators(CLI::App& bench, std::function<void()>& action) {
  const auto arguments = std::make_shared<OperatorsBenchArguments>();
  CLI::App* command =
      bench.add_subcommand("operators", "The experts' operators beside their floors and torch");
  command
      ->add_option("WHAT", arguments->what,
                   "layer: one of the sizes below; matmul, ffn, decode, scaling: tables of fixed sizes")
      ->check(one_of({"layer", "matmul", "ffn", "decode", "scaling"}))
      ->capture_default_str();
  add_size(*command, "--tokens", arguments->layer.tokens, "Tokens in a batch");
  add_size(*command, "--hidden", arguments->layer.hidden, "Model width D");
  add_size(*command, "--width", arguments->layer.width, "Expert width F");
  add_size(*command, "--experts", arguments->layer.experts, "Experts");
  add_size(*command, "--top-k", arguments->layer.top_k, "Experts a token");
  command->add_option("--dtype", arguments->dtypes, "fp32, bf16 or fp32,bf16")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(one_of({"fp32", "bf16"}))
      ->capture_default_str();
  add_seconds(*command, arguments->seconds, "How long to measure each row");
  arguments->common.add_to(*command);
  command->footer(
      "Median, least and most time on random tokens, with weights that no cache holds. The floor is the "
      "larger "
      "of\n"
      "operations over the instruction peak and the weights' bytes over the read bandwidth, both of as many\n"
      "threads and measured in the same run.\n"
      "  layer    expert_ffn forward and backward beside a loop over experts in at:: calls\n"
      "  matmul   expert_matmul of 64 experts of 512 and 64 gathered rows, beside at::linear; expert_outer\n"
      "  ffn      512 tokens: D 512, F 1024, 16 experts, top-2; D 2048, F 1024, 64 experts, top-8\n"
      "  decode   1, 2, 4, 8 tokens; each run between two readings of memory\n"
      "  scaling  4096 tokens on 1, 2, 4 .. threads in turn, each beside the peak of as many\n"
      "benchmarks/peers/operators.py measures Python peers beside it.");
  command->callback([arguments, command, &action] {
    action = [arguments, command] {
      for (const char* size : kSizes) {
        if (arguments->what != "layer" && command->count(size) > 0)
          throw UserError(Mistake{size, "layer beside it", arguments->what, ""});
      }
      arguments->layer.device = parse_device(arguments->common.device, "--device");
      run(*arguments);
    };
  });
}

}  // namespace motley
