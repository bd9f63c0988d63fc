// How an expert layer's forward pass keeps its share of the instruction peak as threads are added.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>

#include "benchmarks/operators/layer.h"
#include "benchmarks/operators/machine_ceilings.h"
#include "benchmarks/operators/one_layer.h"
#include "benchmarks/operators/rows.h"

namespace motley::bench {
namespace {

struct AtThreads {
  int threads;
  std::vector<double> seconds, peaks, shares, kept;
};

// All numbers of threads in turn: other work on the host, and the clock, change from one second to the next.
void scaling(const OperatorBench& bench, at::ScalarType type, const std::string& shape, Layer layer) {
  std::vector<AtThreads> each;
  for (int threads = 1; threads < at::get_num_threads(); threads *= 2)
    each.push_back({threads, {}, {}, {}, {}});
  each.push_back({at::get_num_threads(), {}, {}, {}, {}});
  layer.forward();  // touches all memory
  const double begin = seconds_now();
  for (int round = 0; round < 3 || seconds_now() - begin < bench.seconds * static_cast<double>(each.size());
       ++round) {
    for (AtThreads& at : each) {
      at::set_num_threads(at.threads);
      double peak = type == at::kFloat ? fp32_ceiling() : bf16_ceiling();
      if (peak == 0) peak = product_peak(type, at::kCPU);
      const double start = seconds_now();
      layer.forward();
      const double taken = seconds_now() - start;
      at.seconds.push_back(taken);
      at.peaks.push_back(peak);
      at.shares.push_back(layer.flops / taken / peak);
      at.kept.push_back(at.shares.back() / each.front().shares.back());
    }
  }
  const auto median = [](std::vector<double> values) { return summarise(std::move(values)).median; };
  for (const AtThreads& at : each) {
    char remark[64];
    std::snprintf(remark, sizeof remark, "keeps %.1f %% of one thread's share", 100 * median(at.kept));
    bench.report({"forward " + shape + ", " + std::to_string(at.threads) + " threads", type,
                  summarise(at.seconds), Work{layer.flops, layer.bytes}, median(at.peaks), 0,
                  median(at.shares), remark});
  }
}

}  // namespace

void bench_scaling(const OperatorBench& bench, at::ScalarType type) {
  scaling(bench, type, "4096,512,1024,16,2", Layer(type, 4096, 512, 1024, 16, 2));
  scaling(bench, type, "4096,2048,1024,64,8", Layer(type, 4096, 2048, 1024, 64, 8));
}

}  // namespace motley::bench
