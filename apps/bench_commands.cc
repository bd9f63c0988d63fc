#include "apps/bench_commands.h"

#include <ATen/Parallel.h>

#include "apps/machine.h"
#include "motley/base/concat.h"
#include "motley/base/env.h"
#include "motley/base/format.h"
#include "motley/infer/threads.h"
#include "motley/kernels/cpu/families.h"

namespace motley {

void BenchArguments::add_to(CLI::App& command) {
  command.add_option("--threads", threads, "Threads (default: MOTLEY_THREADS, or all processors)")
      ->check(CLI::Range(1, kMaxThreads));
  command.add_option("--device", device, "Where to measure: cpu, cuda or cuda:<n>")->capture_default_str();
  command.add_flag("--json", json, "Print one JSON object on standard output");
}

int BenchArguments::use_threads() const { return motley::use_threads(threads); }

void add_size(CLI::App& command, const char* name, int64_t& value, const char* what) {
  command.add_option(name, value, what)
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
}

nlohmann::json bench_setting(const BenchArguments& arguments) {
  const Machine machine = examine_machine();
  const bool gpu = arguments.device != "cpu";
  return {{"device", arguments.device},
          {"processor", gpu && !machine.gpus.empty() ? machine.gpus.front() : machine.cpu},
          {"kernels", gpu ? "CUDA" : kernels::cpu_family().name},
          {"threads", at::get_num_threads()}};
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
