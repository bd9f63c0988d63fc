#include "apps/bench_commands.h"

#include <ATen/Parallel.h>

#include <cstdio>

#include "apps/machine.h"
#include "apps/option_checks.h"
#include "benchmarks/operators/machine_ceilings.h"
#include "motley/base/concat.h"
#include "motley/base/env.h"
#include "motley/base/format.h"
#include "motley/infer/threads.h"
#include "motley/kernels/cpu/families.h"

namespace motley {

void BenchArguments::add_to(CLI::App& command) {
  command.add_option("--threads", threads, "Threads (default: MOTLEY_THREADS, or all processors)")
      ->check(within(1, kMaxThreads));
  command.add_option("--device", device, "Where to measure: cpu, cuda or cuda:<n>")->capture_default_str();
  command.add_flag("--json", json, "Print one JSON object on standard output");
}

int BenchArguments::use_threads() const { return motley::use_threads(threads); }

void add_size(CLI::App& command, const char* name, int64_t& value, const char* what) {
  command.add_option(name, value, what)->check(within(int64_t{1}, int64_t{1} << 24))->capture_default_str();
}

void add_seconds(CLI::App& command, double& value, const char* what, double least) {
  command.add_option("--seconds", value, what)->check(within(least, 3600.0))->capture_default_str();
}

namespace {

// Of all threads, measured now; figures that this processor's instructions do not tell are left out.
nlohmann::json cpu_ceilings() {
  nlohmann::json ceilings = nlohmann::json::object();
  const auto tell = [&](const char* name, const char* unit, double value) {
    if (value == 0) return;
    ceilings[name] = value;
    std::fprintf(stderr, "%s%s %.1f %s", ceilings.size() == 1 ? "ceilings now: " : ", ", name, value / 1e9,
                 unit);
  };
  tell("fp32", "GFLOP/s", bench::fp32_ceiling());
  tell("bf16", "GFLOP/s", bench::bf16_ceiling());
  tell("read", "GB/s", bench::read_ceiling(0.5));
  if (!ceilings.empty()) std::fprintf(stderr, "\n");
  return ceilings;
}

}  // namespace

nlohmann::json bench_setting(const BenchArguments& arguments) {
  const Machine machine = examine_machine();
  const bool gpu = arguments.device != "cpu";
  nlohmann::json setting = {{"device", arguments.device},
                            {"processor", gpu && !machine.gpus.empty() ? machine.gpus.front() : machine.cpu},
                            {"kernels", gpu ? "CUDA" : kernels::cpu_family().name},
                            {"threads", at::get_num_threads()}};
  if (!gpu) setting["ceilings"] = cpu_ceilings();
  return setting;
}

nlohmann::json timing_json(const bench::Timing& timing) {
  return {{"milliseconds", timing.median * 1e3},
          {"least_milliseconds", timing.least * 1e3},
          {"most_milliseconds", timing.most * 1e3},
          {"runs", timing.runs}};
}

std::string format_timing(const bench::Timing& timing) {
  return concat(format_decimal(timing.median * 1e3, 2), " ms (", format_decimal(timing.least * 1e3, 2),
                " to ", format_decimal(timing.most * 1e3, 2), ")");
}

}  // namespace motley
