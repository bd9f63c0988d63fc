// A few tokens through an expert layer: weights are read once, and reading them is the floor.
#include <ATen/ops/empty.h>

#include <algorithm>

#include "benchmarks/operators/layer.h"
#include "benchmarks/operators/machine_ceilings.h"
#include "benchmarks/operators/rows.h"

namespace motley::bench {
namespace {

constexpr int64_t kWidth = 2048, kExpertWidth = 1024, kExperts = 64, kTopK = 8;
constexpr int kPlans = 16;  // choices of different experts, in turn, so that no cache holds their weights

int64_t experts_of(const RoutingPlan& plan) {
  const auto* offset = plan.expert_offset.const_data_ptr<int32_t>();
  int64_t experts = 0;
  for (int64_t e = 0; e < kExperts; ++e) experts += offset[e + 1] > offset[e];
  return experts;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void decode(const OperatorBench& bench, at::ScalarType type, const ExpertWeights& weights, int64_t tokens) {
  const at::Tensor x = random_tensor({tokens, kWidth}, type);
  const at::Tensor rows = at::empty({tokens * kTopK, kWidth}, x.options());
  const double flops = 6.0 * static_cast<double>(tokens * kTopK * kWidth * kExpertWidth);
  std::vector<RoutingPlan> plans;
  for (int i = 0; i < kPlans; ++i) plans.push_back(random_plan(tokens, kExperts, kTopK));
  // Memory changes its pace within seconds: every run stands between two readings of as many bytes.
  ReadCeiling ceiling;
  std::vector<double> seconds, bytes, rates, shares;
  double rate_before = 0;
  const double begin = seconds_now();
  for (int i = -2; i < kPlans || seconds_now() - begin < 2 * bench.seconds; ++i) {
    const RoutingPlan& plan = plans[(i + 2) % kPlans];
    const int64_t size = experts_of(plan) * 3 * kWidth * kExpertWidth * x.element_size();
    const double start = seconds_now();
    ops::expert_rows(x, plan, weights, rows);
    const double taken = seconds_now() - start;
    const double rate_after = ceiling.rate(size);
    if (i >= 0) {
      const double rate = (rate_before + rate_after) / 2;
      const double by_bytes = rate > 0 ? static_cast<double>(size) / rate : 0;
      seconds.push_back(taken);
      bytes.push_back(static_cast<double>(size));
      rates.push_back(rate);
      shares.push_back(std::max(by_bytes, flops / bench.peak(type)) / taken);
    }
    rate_before = rate_after;
  }
  bench.report({"decode " + std::to_string(tokens) + " tokens 2048,1024,64,8", type, summarise(seconds),
                Work{flops, median(bytes)}, bench.peak(type), median(rates), median(shares)});
}

}  // namespace

void bench_decode(const OperatorBench& bench, at::ScalarType type) {
  ExpertWeights weights;
  weights.gate_up = random_tensor({kExperts, 2 * kExpertWidth, kWidth}, type, 0.02f);
  weights.down = random_tensor({kExperts, kWidth, kExpertWidth}, type, 0.02f);
  for (const int64_t tokens : {1, 2, 4, 8}) decode(bench, type, weights, tokens);
}

}  // namespace motley::bench
