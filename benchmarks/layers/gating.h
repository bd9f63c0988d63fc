// Dynamic gating against the padded static layer (arXiv 2303.06182, section V): time and peak memory of a
// forward pass.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <vector>

#include "benchmarks/timing.h"

namespace motley::bench {

struct GatingBench {
  int64_t tokens = 4096, hidden = 256, width = 1024, experts = 512, top_k = 2;
  double capacity = 0.05;  // C: each expert has room for C * tokens
  at::ScalarType dtype = at::kFloat;
  c10::Device device = c10::kCPU;
  bool static_too = true;  // false: the dynamic layer alone
  double seconds = 5;      // for each of the two
};

struct GatingResult {
  double waste;    // E C / K
  int64_t places;  // C * tokens, of an expert
  Timing statically, dynamically;
  double static_bytes, dynamic_bytes;  // peak of a forward pass above what stood before, without weights
  double dropped;                      // assignments that found no place in the static layer
};

// One layer at one batch.
struct GatingBatch {
  int64_t tokens;
  Timing timing;
  double bytes;
  double tokens_per_second() const { return static_cast<double>(tokens) / timing.median; }
};
// bench.tokens, twice as many, and so on, until memory runs out (static_layer_bytes above `available`, or the
// device says so) or throughput has not risen by a hundredth over two steps.
std::vector<GatingBatch> bench_batches(const GatingBench& bench, bool padded, double available);

// Bytes that the static layer needs at least; to be compared with what the machine has.
double static_layer_bytes(const GatingBench& bench);
GatingResult bench_gating(const GatingBench& bench);

}  // namespace motley::bench
