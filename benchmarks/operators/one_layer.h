// An expert layer of any size, beside a loop over its experts in at:: calls; on a CPU or a GPU.
#pragma once

#include <c10/core/Device.h>

#include "benchmarks/operators/rows.h"

namespace motley::bench {

struct OneLayer {
  int64_t tokens = 512, hidden = 512, width = 1024, experts = 16, top_k = 2;
  c10::Device device = c10::kCPU;
};

// FLOP/s of a large product of torch's: a ceiling where no loop of this processor's instructions tells one.
double product_peak(at::ScalarType type, c10::Device device);

void bench_one_layer(const OperatorBench& bench, at::ScalarType type, const OneLayer& layer);

}  // namespace motley::bench
