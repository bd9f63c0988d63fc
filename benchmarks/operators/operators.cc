// The expert operators on CPU, each phase apart, against the ceilings of this machine measured in the same
// run: bench_operators [THREADS [all | matmul | ffn | decode | scaling [SECONDS_A_ROW]]].
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "benchmarks/operators/machine_ceilings.h"
#include "benchmarks/timing.h"
#include "motley/base/memory.h"
#include "motley/kernels/cpu/families.h"
#include "motley/ops/expert_ffn.h"
#include "motley/ops/operators.h"

namespace motley::bench {
namespace {

struct Bench {
  double fp32, bf16;  // FLOP/s of all threads
  double seconds;     // for each row of the table
  double peak(at::ScalarType type) const { return type == at::kFloat ? fp32 : bf16; }
  Timing time(const Run& run) const { return measure(seconds, run); }
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

void report(const char* what, at::ScalarType type, double flops, double peak, const Timing& r) {
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
  const at::Tensor contiguous = random({rows, transposed ? kOut : kIn}, type);
  const auto ours = [&](int64_t) {
    ops::expert_matmul(transposed ? xt : x, w, {}, plan, {}, true, !transposed);
  };
  const auto peer = [&](int64_t) {
    for (int64_t e = 0; e < experts; ++e)
      transposed ? at::mm(contiguous, w[e]) : at::linear(contiguous, w[e]);
  };
  const auto timings = measure_in_turn(2 * bench.seconds, {ours, peer});
  char name[64];
  std::snprintf(name, sizeof name, "expert_matmul%s 64 x %ld rows 2048x1024", transposed ? " (x W)" : "",
                rows);
  report(name, type, flops, bench.peak(type), timings[0]);
  std::snprintf(name, sizeof name, "at::%s, the same %ld rows each", transposed ? "mm" : "linear", rows);
  report(name, type, flops, bench.peak(type), timings[1]);
  if (transposed) return;
  const at::Tensor dy = random({experts * rows, kOut}, type);
  const Timing o = bench.time([&](int64_t) { ops::expert_outer(dy, x, plan, true); });
  std::snprintf(name, sizeof name, "expert_outer 64 x %ld rows 2048x1024", rows);
  report(name, type, flops, bench.peak(type), o);
}

struct Layer {
  RoutingPlan plan;
  at::Tensor x, gate_weights, rows;
  ExpertWeights weights;
  double flops;  // of a forward pass

  Layer(at::ScalarType type, int64_t tokens, int64_t width, int64_t expert_width, int64_t experts,
        int64_t top_k)
      : plan(random_plan(tokens, experts, top_k)),
        x(random({tokens, width}, type)),
        gate_weights(at::rand({tokens, top_k})),
        rows(at::empty({tokens * top_k, width}, x.options())),
        flops(6.0 * static_cast<double>(tokens * top_k * width * expert_width)) {
    weights.gate_up = random({experts, 2 * expert_width, width}, type, 0.02f);
    weights.down = random({experts, width, expert_width}, type, 0.02f);
  }
  void forward(const at::Tensor& hidden = {}) {
    hidden.defined() ? ops::expert_rows(x, plan, weights, rows, hidden)
                     : ops::expert_rows(x, plan, weights, rows);
    ops::token_sum(rows, gate_weights, plan);
  }
};

void ffn(const Bench& bench, at::ScalarType type, const char* shape, Layer layer) {
  const at::Tensor& x = layer.x;
  const ExpertWeights& weights = layer.weights;
  const double flops = layer.flops;
  const at::Tensor dy = random(x.sizes(), type);
  const at::Tensor hidden = at::empty({layer.rows.size(0), weights.gate_up.size(1)}, x.options());
  const auto row = [&](const char* what, double work, const Run& run) {
    report((std::string("expert_ffn ") + shape + " " + what).c_str(), type, work, bench.peak(type),
           bench.time(run));
  };
  row("forward", flops, [&](int64_t) { layer.forward(); });
  ExpertWeightGradients into;
  into.gate_up = at::zeros_like(weights.gate_up);
  into.down = at::zeros_like(weights.down);
  layer.forward(hidden);
  ops::ExpertFfnInputGradients input;
  row("backward input", flops, [&](int64_t) {
    input = ops::expert_ffn_backward_input(dy, hidden, layer.gate_weights, layer.plan, weights);
  });
  row("backward weight (accumulate)", flops, [&](int64_t) {
    ops::expert_ffn_backward_weight(dy, x, input, layer.gate_weights, layer.plan, weights, into);
  });
  row("forward and backward", 3 * flops, [&](int64_t) {
    layer.forward(hidden);
    auto in = ops::expert_ffn_backward_input(dy, hidden, layer.gate_weights, layer.plan, weights);
    ops::expert_ffn_backward_weight(dy, x, in, layer.gate_weights, layer.plan, weights, into);
  });
}

// Beside the peak of as many threads at the same time: cores that share one slow each other down.
void scaling(const Bench& bench) {
  Layer layer(at::kBFloat16, 4096, 2048, 1024, 64, 8);
  std::vector<double> peaks;
  const auto timings = measure_in_turn(
      bench.seconds, {[&](int64_t) { layer.forward(); }, [&](int64_t) { peaks.push_back(bf16_ceiling()); }},
      c10::kCPU, 2);
  std::sort(peaks.begin(), peaks.end());
  report("expert_ffn 4096,2048,1024,64,8 forward", at::kBFloat16, layer.flops, peaks[peaks.size() / 2],
         timings.front());
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
  const double bytes = experts * 3 * kWidth * kExpertWidth * weights.gate_up.element_size();
  ReadCeiling ceiling(static_cast<int64_t>(bytes));
  const Timing r = measure_in_turn(2 * bench.seconds,
                                   {[&](int64_t i) { ops::expert_rows(x, plans[i % kPlans], weights, rows); },
                                    [&](int64_t) { ceiling.read(); }})
                       .front();
  std::printf(
      "decode %ld tokens %30s %s  %9.3f ms  %7.1f GB/s  %5.1f %% of %.1f GB/s read  (%.3f to %.3f ms)\n",
      tokens, "", type == at::kFloat ? "fp32" : "bf16", r.median * 1e3, bytes / r.median / 1e9,
      100 * bytes / r.median / ceiling.median(), ceiling.median() / 1e9, r.least * 1e3, r.most * 1e3);
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  set_up_memory();
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  at::set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  const std::string only = argc > 2 ? argv[2] : "all";
  const Bench bench{fp32_ceiling(), bf16_ceiling(), argc > 3 ? std::atof(argv[3]) : 2.0};
  std::printf("%s, %d threads: peak of all fp32 %.1f, bf16 %.1f GFLOP/s; read %.1f GB/s\n",
              kernels::cpu_family().name.c_str(), at::get_num_threads(), bench.fp32 / 1e9, bench.bf16 / 1e9,
              read_ceiling(1) / 1e9);
  for (const auto type : {at::kBFloat16, at::kFloat}) {
    if (only == "all" || only == "matmul") {
      for (const int64_t rows : {512, 64}) {
        matmul(bench, type, rows, false);
        matmul(bench, type, rows, true);
      }
    }
    if (only == "all" || only == "ffn") {
      ffn(bench, type, "A 512,512,1024,16,2", Layer(type, 512, 512, 1024, 16, 2));
      ffn(bench, type, "B 512,2048,1024,64,8", Layer(type, 512, 2048, 1024, 64, 8));
    }
    if (only == "scaling" && type == at::kBFloat16) scaling(bench);
    if (only == "all" || only == "decode") {
      for (const int64_t tokens : {1, 2, 4, 8}) decode(bench, type, tokens);
    }
  }
  return 0;
}

}  // namespace
}  // namespace motley::bench

int main(int argc, char** argv) { return motley::bench::run(argc, argv); }
