// Times the experts' operators against the same computation as a loop over experts in at:: calls.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

namespace motley {

struct OperatorBench {
  int64_t tokens = 512, hidden = 512, width = 1024, experts = 16, top_k = 2;
  bool bf16 = false;
  c10::Device device = c10::kCPU;
};

struct OperatorBenchRow {
  std::string name;
  double flops;                // of one run
  double median, least, most;  // seconds
};

struct OperatorBenchResult {
  std::string kernels;
  int threads;
  double peak;  // FLOP/s of all threads, measured
  std::vector<OperatorBenchRow> rows;
};

// Throws UserError when top_k is larger than the number of experts.
OperatorBenchResult bench_operators(const OperatorBench& bench);

}  // namespace motley
