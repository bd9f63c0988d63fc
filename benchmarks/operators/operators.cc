// The expert operators on CPU, each phase apart, against the ceilings of this machine measured in the same
// run: bench_operators [THREADS [all | matmul | ffn | decode | scaling [SECONDS_A_ROW]]].
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "benchmarks/operators/ceilings.h"
#include "motley/kernels/cpu/families.h"
#include "motley/ops/expert_ffn.h"
#include "motley/ops/operators.h"

namespace motley::bench {
namespace {

struct Result {
  double median, least, most;  // seconds
};

Result time(double budget, const std::function<void(int)>& run) {
  using Clock = std::chrono::steady_clock;
  run(0);
  std::vector<double> times;
  const auto begin = Clock::now();
  for (int i = 1; i < 200; ++i) {
    const auto start = Clock::now();
    run(i);
    const auto end = Clock::now();
    times.push_back(std::chrono::duration<double>(end - start).count());
    if (i >= 3 && std::chrono::duration<double>(end - begin).count() > budget) break;
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

// FLOP/s of all threads at once: clocks fall as more cores work.
double on_all_threads(double (*peak)()) {
  const int64_t threads = at::get_num_threads();
  std::vector<double> rates(threads);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) rates[i] = peak();
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

struct Bench {
  double fp32, bf16, bandwidth;  // of all threads
  double seconds;                // for each row of the table
  double peak(at::ScalarType type) const { return type == at::kFloat ? fp32 : bf16; }
  Result time(const std::function<void(int)>& run) const { return bench::time(seconds, run); }
};

// Numbers in [-scale, scale), made by all threads: the generator's own would take longer than the bench.
at::Tensor random(at::IntArrayRef sizes, at::ScalarType type, float scale = 1.0f) {
  at::Tensor made = at::empty(sizes, at::TensorOptions().dtype(type));
  const auto fill = [&](auto* to) {
    at::parallel_for(0, made.numel(), 1 << 16, [&](int64_t first, int64_t last) {
      uint32_t state = static_cast<uint32_t>(first) * 2654435761u + 1;
      for (int64_t i = first; i < last; ++i) {
        state = state * 1664525u + 1013904223u;
        to[i] = (static_cast<float>(state >> 8) * 0x1p-23f - 1.0f) * scale;
      }
    });
  };
  type == at::kFloat ? fill(made.mutable_data_ptr<float>()) : fill(made.mutable_data_ptr<at::BFloat16>());
  return made;
}

void report(const char* what, at::ScalarType type, double flops, double peak, const Result& r) {
  std::printf("%-44s %s  %9.3f ms  %7.1f GFLOP/s  %5.1f %% of peak  (%.3f to %.3f ms)\n", what,
              type == at::kFloat ? "fp32" : "bf16", r.median * 1e3, flops / r.median / 1e9,
              100 * flops / r.median / peak, r.least * 1e3, r.most * 1e3);
  std::fflush(stdout);
}

// A plan over shuffled tokens: every expert `rows` rows (top-1), or chosen at random (top-k).
RoutingPlan even_plan(int64_t experts, int64_t rows) {
  at::Tensor slots = at::randn({experts * rows}).argsort().remainder(experts).to(at::kInt).unsqueeze(1);
  return ops::routing_plan(slots.contiguous(), experts);
}
RoutingPlan random_plan(int64_t tokens, int64_t experts, int64_t top_k) {
  const at::Tensor slots = std::get<1>(at::rand({tokens, experts}).topk(top_k, 1)).to(at::kInt).contiguous();
  return ops::routing_plan(slots, experts);
}

void matmul(const Bench& bench, at::ScalarType type, int64_t rows, bool transposed) {
  constexpr int64_t kIn = 2048, kOut = 1024;
  const int64_t experts = 64;
  const at::Tensor x = random({experts * rows, kIn}, type);
  const at::Tensor w = random({experts, kOut, kIn}, type, 0.02f);
  const at::Tensor xt = random({experts * rows, kOut}, type);
  const RoutingPlan plan = even_plan(experts, rows);
  const double flops = 2.0 * experts * rows * kIn * kOut;
  const Result r =
      bench.time([&](int) { ops::expert_matmul(transposed ? xt : x, w, {}, plan, {}, true, !transposed); });
  char name[64];
  std::snprintf(name, sizeof name, "expert_matmul%s 64 x %ld rows 2048x1024", transposed ? " (x W)" : "",
                rows);
  report(name, type, flops, bench.peak(type), r);
  if (transposed) return;
  const at::Tensor contiguous = random({rows, kIn}, type);
  const Result peer = bench.time([&](int) {
    for (int64_t e = 0; e < experts; ++e) at::linear(contiguous, w[e]);
  });
  std::snprintf(name, sizeof name, "at::linear, the same %ld rows each", rows);
  report(name, type, flops, bench.peak(type), peer);
  const at::Tensor dy = random({experts * rows, kOut}, type);
  const Result o = bench.time([&](int) { ops::expert_outer(dy, x, plan, true); });
  std::snprintf(name, sizeof name, "expert_outer 64 x %ld rows 2048x1024", rows);
  report(name, type, flops, bench.peak(type), o);
}

void ffn(const Bench& bench, at::ScalarType type, const char* label, int64_t tokens, int64_t width,
         int64_t expert_width, int64_t experts, int64_t top_k, bool parts = true) {
  const RoutingPlan plan = random_plan(tokens, experts, top_k);
  const at::Tensor x = random({tokens, width}, type);
  const at::Tensor dy = random({tokens, width}, type);
  const at::Tensor gate_weights = at::rand({tokens, top_k});
  ExpertWeights weights;
  weights.gate_up = random({experts, 2 * expert_width, width}, type, 0.02f);
  weights.down = random({experts, width, expert_width}, type, 0.02f);
  const int64_t n = tokens * top_k;
  at::Tensor rows = at::empty({n, width}, x.options());
  at::Tensor hidden = at::empty({n, 2 * expert_width}, x.options());
  const double flops = 6.0 * n * width * expert_width;
  char name[64];
  const Result f = bench.time([&](int) {
    ops::expert_rows(x, plan, weights, rows);
    ops::token_sum(rows, gate_weights, plan);
  });
  std::snprintf(name, sizeof name, "%s forward", label);
  report(name, type, flops, bench.peak(type), f);
  ExpertWeightGradients into;
  into.gate_up = at::zeros_like(weights.gate_up);
  into.down = at::zeros_like(weights.down);
  if (parts) {
    ops::expert_rows(x, plan, weights, rows, hidden);
    ops::ExpertFfnInputGradients input;
    const Result bi = bench.time(
        [&](int) { input = ops::expert_ffn_backward_input(dy, hidden, gate_weights, plan, weights); });
    std::snprintf(name, sizeof name, "%s backward input", label);
    report(name, type, flops, bench.peak(type), bi);
    const Result bw = bench.time(
        [&](int) { ops::expert_ffn_backward_weight(dy, x, input, gate_weights, plan, weights, into); });
    std::snprintf(name, sizeof name, "%s backward weight (accumulate)", label);
    report(name, type, flops, bench.peak(type), bw);
  }
  const Result all = bench.time([&](int) {
    ops::expert_rows(x, plan, weights, rows, hidden);
    ops::token_sum(rows, gate_weights, plan);
    auto in = ops::expert_ffn_backward_input(dy, hidden, gate_weights, plan, weights);
    ops::expert_ffn_backward_weight(dy, x, in, gate_weights, plan, weights, into);
  });
  std::snprintf(name, sizeof name, "%s forward and backward", label);
  report(name, type, 3 * flops, bench.peak(type), all);
}

// Weights of several layers are used in turn, so that no cache holds them.
void decode(const Bench& bench, at::ScalarType type, int64_t tokens) {
  constexpr int64_t kWidth = 2048, kExpertWidth = 1024, kExperts = 64, kTopK = 8;
  ExpertWeights weights;
  weights.gate_up = random({kExperts, 2 * kExpertWidth, kWidth}, type, 0.02f);
  weights.down = random({kExperts, kWidth, kExpertWidth}, type, 0.02f);
  const at::Tensor x = random({tokens, kWidth}, type);
  std::vector<RoutingPlan> plans;
  double experts = 0;
  constexpr int kPlans = 16;
  for (int i = 0; i < kPlans; ++i) {
    plans.push_back(random_plan(tokens, kExperts, kTopK));
    const at::Tensor offset = plans.back().expert_offset;
    for (int64_t e = 0; e < kExperts; ++e) {
      experts += offset[e + 1].item<int>() > offset[e].item<int>() ? 1.0 / kPlans : 0.0;
    }
  }
  at::Tensor rows = at::empty({tokens * kTopK, kWidth}, x.options());
  const Result r = bench.time([&](int i) { ops::expert_rows(x, plans[i % kPlans], weights, rows); });
  const double bytes = experts * 3 * kWidth * kExpertWidth * weights.gate_up.element_size();
  std::printf(
      "decode %ld tokens %30s %s  %9.3f ms  %7.1f GB/s  %5.1f %% of read bandwidth  (%.3f to %.3f ms)\n",
      tokens, "", type == at::kFloat ? "fp32" : "bf16", r.median * 1e3, bytes / r.median / 1e9,
      100 * bytes / r.median / bench.bandwidth, r.least * 1e3, r.most * 1e3);
}

double all_threads_bandwidth(const at::Tensor& memory) {
  const int64_t threads = at::get_num_threads();
  const int64_t bytes = memory.numel() * memory.element_size() / threads / 64 * 64;
  std::vector<double> rates(threads);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      rates[i] = read_bandwidth(static_cast<const std::byte*>(memory.const_data_ptr()) + i * bytes, bytes);
    }
  });
  double sum = 0;
  for (double rate : rates) sum += rate;
  return sum;
}

// glibc gives large blocks back to the kernel, and every page of the next one then costs a fault: with
// results of hundreds of megabytes that is half of the time, ours and the peer's.
void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

int run(int argc, char** argv) {
  keep_freed_memory();
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  at::set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  const std::string only = argc > 2 ? argv[2] : "all";
  const std::string family = kernels::cpu_family().name;
  const Bench bench{on_all_threads(fma_peak), on_all_threads(family == "amx" ? tile_peak : bf16_pair_peak),
                    all_threads_bandwidth(random({1 << 27}, at::kFloat)),
                    argc > 3 ? std::atof(argv[3]) : 2.0};
  std::printf("%s, %d threads: peak of all fp32 %.1f, bf16 %.1f GFLOP/s; read %.1f GB/s\n", family.c_str(),
              at::get_num_threads(), bench.fp32 / 1e9, bench.bf16 / 1e9, bench.bandwidth / 1e9);
  for (const auto type : {at::kBFloat16, at::kFloat}) {
    if (only == "all" || only == "matmul") {
      for (const int64_t rows : {512, 64}) {
        matmul(bench, type, rows, false);
        matmul(bench, type, rows, true);
      }
    }
    if (only == "all" || only == "ffn") {
      ffn(bench, type, "expert_ffn A 512,512,1024,16,2", 512, 512, 1024, 16, 2);
      ffn(bench, type, "expert_ffn B 512,2048,1024,64,8", 512, 2048, 1024, 64, 8);
    }
    if (only == "scaling" && type == at::kBFloat16) {
      ffn(bench, type, "expert_ffn 4096,2048,1024,64,8", 4096, 2048, 1024, 64, 8, false);
    }
    if (only == "all" || only == "decode") {
      for (const int64_t tokens : {1, 2, 4, 8}) decode(bench, type, tokens);
    }
  }
  return 0;
}

}  // namespace
}  // namespace motley::bench

int main(int argc, char** argv) { return motley::bench::run(argc, argv); }
