// The subcommands of `motley bench`; see commands.h.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "benchmarks/timing.h"

namespace motley {

void add_bench_operators(CLI::App& bench, std::function<void()>& action);
void add_bench_train(CLI::App& bench, std::function<void()>& action);
void add_bench_zero_experts(CLI::App& bench, std::function<void()>& action);
void add_bench_gating(CLI::App& bench, std::function<void()>& action);

// Options and output that they share.
struct BenchArguments {
  int threads = 0;  // 0: MOTLEY_THREADS, or all processors
  std::string device = "cpu";
  bool json = false;

  void add_to(CLI::App& command);
  int use_threads() const;  // sets torch's threads and tells how many there are
};

// A number of tokens, experts and the like, at least 1.
void add_size(CLI::App& command, const char* name, int64_t& value, const char* what);
// --seconds, up to an hour.
void add_seconds(CLI::App& command, double& value, const char* what, double least = 0);

// "kernels", "threads", "processor", "device"; on a CPU "ceilings", too, in FLOP/s and bytes a second, which
// are measured and printed.
nlohmann::json bench_setting(const BenchArguments& arguments);
nlohmann::json timing_json(const bench::Timing& timing);  // milliseconds
// "12.345 ms (12.3 to 12.9)"
std::string format_timing(const bench::Timing& timing);

}  // namespace motley
