// MoE++'s promise (arXiv 2410.07348, Tab. 3): experts without computation save time in proportion to the
// assignments that they take.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "benchmarks/timing.h"

namespace motley::bench {

struct ExpertForwardBench {
  int64_t hidden = 768, width = 2048, experts = 8, top_k = 2;  // the paper's 0.6B model
  int64_t constant_experts = 2;                                // beside a zero and a copy expert
  std::vector<double> taus = {0.1, 0.25, 0.5, 0.75, 1.0};
  int64_t rows_per_expert = 512;  // at least, on average; the number of tokens follows, for all taus
  int64_t tokens = 0;             // 0: as rows_per_expert asks for
  at::ScalarType dtype = at::kBFloat16;
  c10::Device device = c10::kCPU;
  double seconds = 5;  // for each tau
};

struct ExpertForwardRow {
  double tau;
  double ffn_experts_per_token;  // measured
  int64_t least_rows;            // of the expert with the fewest
  Timing vanilla, moe_plus_plus;
  double host_median;  // seconds that the host took to hand MoE++'s forward over to a GPU
  double theory;       // assignments of vanilla over FFN assignments
  double speedup;      // vanilla's median over MoE++'s
  double share() const { return speedup / theory; }
};

int64_t num_tokens(const ExpertForwardBench& bench);
// Everything after the router, in inference: plan, experts, zero-computation experts, their sum.
std::vector<ExpertForwardRow> bench_expert_forward(const ExpertForwardBench& bench);

}  // namespace motley::bench
