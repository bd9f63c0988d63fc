// Dynamic gating against the padded static layer (arXiv 2303.06182, section V): time and peak memory of a
// forward pass.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "benchmarks/timing.h"

namespace motley::bench {

struct GatingBench {
  int64_t tokens = 4096, hidden = 256, width = 1024, experts = 512, top_k = 2;
  double capacity = 0.05;  // C: each expert has room for C * tokens
  at::ScalarType dtype = at::kFloat;
  double seconds = 5;  // for each of the two
};

struct GatingResult {
  double waste;    // E C / K
  int64_t places;  // C * tokens, of an expert
  Timing statically, dynamically;
  double static_bytes, dynamic_bytes;  // peak of a forward pass above what stood before, without weights
  double dropped;                      // assignments that found no place in the static layer
};

// Bytes that the static layer needs at least; to be compared with what the machine has.
double static_layer_bytes(const GatingBench& bench);
GatingResult bench_gating(const GatingBench& bench);

}  // namespace motley::bench
