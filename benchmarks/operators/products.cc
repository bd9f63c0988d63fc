// One core's worth of the experts' products, and a layer's forward and backward passes.
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>

#include "benchmarks/operators/layer.h"
#include "benchmarks/operators/rows.h"

namespace motley::bench {
namespace {

constexpr int64_t kExperts = 64, kIn = 2048, kOut = 1024;

OperatorRow row_of(const OperatorBench& bench, const std::string& name, at::ScalarType type,
                   const Timing& time, const Work& work) {
  return {name, type, time, work, bench.peak(type), bench.read};
}

// In turn with torch's product of as many contiguous rows, which stay in cache.
void matmul(const OperatorBench& bench, at::ScalarType type, int64_t rows) {
  const RoutingPlan plan = even_plan(kExperts, rows);
  const at::Tensor w = random_tensor({kExperts, kOut, kIn}, type, 0.02f);
  const at::Tensor wide = random_tensor({kExperts * rows, kIn}, type);
  const at::Tensor narrow = random_tensor({kExperts * rows, kOut}, type);
  const Work work{2.0 * static_cast<double>(wide.numel() * kOut),
                  static_cast<double>((w.numel() + wide.numel()) * w.element_size())};
  const std::string shape = " 64 x " + std::to_string(rows) + " rows 2048x1024";
  for (const bool transposed : {false, true}) {
    const at::Tensor& x = transposed ? narrow : wide;
    const at::Tensor contiguous = x.narrow(0, 0, rows);
    const auto ours = [&](int64_t) { ops::expert_matmul(x, w, {}, plan, {}, true, !transposed); };
    const auto theirs = [&](int64_t) {
      for (int64_t e = 0; e < kExperts; ++e) {
        transposed ? at::mm(contiguous, w[e]) : at::linear(contiguous, w[e]);
      }
    };
    const auto timings = measure_in_turn(2 * bench.seconds, {ours, theirs});
    const std::string turned = transposed ? " (x W)" : "";
    bench.report(row_of(bench, "expert_matmul" + turned + shape, type, timings[0], work));
    bench.report(
        row_of(bench, std::string(transposed ? "at::mm" : "at::linear") + shape, type, timings[1], work));
  }
  const Timing outer = measure(bench.seconds, [&](int64_t) { ops::expert_outer(narrow, wide, plan, true); });
  bench.report(row_of(bench, "expert_outer" + shape, type, outer, work));
}

void ffn(const OperatorBench& bench, at::ScalarType type, const std::string& shape, Layer layer) {
  const at::Tensor& x = layer.x;
  const ExpertWeights& weights = layer.weights;
  const at::Tensor dy = random_tensor(x.sizes(), type);
  const at::Tensor hidden = at::empty({layer.rows.size(0), weights.gate_up.size(1)}, x.options());
  const auto row = [&](const char* what, double passes, const Run& run) {
    bench.report(row_of(bench, "expert_ffn " + shape + " " + what, type, measure(bench.seconds, run),
                        {passes * layer.flops, passes * layer.bytes}));
  };
  row("forward", 1, [&](int64_t) { layer.forward(); });
  ExpertWeightGradients into;
  into.gate_up = at::zeros_like(weights.gate_up);
  into.down = at::zeros_like(weights.down);
  layer.forward(hidden);
  ops::ExpertFfnInputGradients input;
  const auto backward_input = [&](int64_t) {
    input = ops::expert_ffn_backward_input(dy, hidden, layer.gate_weights, layer.plan, weights);
  };
  const auto backward_weight = [&](int64_t) {
    ops::expert_ffn_backward_weight(dy, x, input, layer.gate_weights, layer.plan, weights, into);
  };
  row("backward input", 1, backward_input);
  row("backward weight (accumulate)", 1, backward_weight);
  row("forward and backward", 3, [&](int64_t) {
    layer.forward(hidden);
    backward_input(0);
    backward_weight(0);
  });
}

}  // namespace

void bench_matmul(const OperatorBench& bench, at::ScalarType type) {
  for (const int64_t rows : {512, 64}) matmul(bench, type, rows);
}

void bench_ffn(const OperatorBench& bench, at::ScalarType type) {
  ffn(bench, type, "512,512,1024,16,2", Layer(type, 512, 512, 1024, 16, 2));
  ffn(bench, type, "512,2048,1024,64,8", Layer(type, 512, 2048, 1024, 64, 8));
}

}  // namespace motley::bench
