#include "apps/bench_operators.h"

#include <ATen/Parallel.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <functional>

#include "benchmarks/device.h"
#include "benchmarks/gpu_ceilings.h"
#include "benchmarks/operators/ceilings.h"
#include "motley/base/clock.h"
#include "motley/base/error.h"
#include "motley/kernels/cpu/families.h"
#include "motley/ops/expert_ffn.h"

namespace motley {
namespace {

constexpr double kSecondsPerRow = 2.0;
constexpr int64_t kCacheBytes = int64_t{256} << 20;  // more than any cache holds

OperatorBenchRow measure(std::string name, double flops, const std::function<void(int64_t)>& run,
                         c10::Device device = c10::kCPU) {
  run(0);
  bench::wait_for(device);
  std::vector<double> times;
  const double begin = seconds_now();
  for (int64_t i = 1; times.size() < 5 || seconds_now() - begin < kSecondsPerRow; ++i) {
    const double start = seconds_now();
    run(i);
    bench::wait_for(device);
    times.push_back(seconds_now() - start);
  }
  std::sort(times.begin(), times.end());
  return {std::move(name), flops, times[times.size() / 2], times.front(), times.back()};
}

double measure_peak(at::ScalarType dtype, c10::Device device) {
  if (!device.is_cpu()) return bench::gpu_matrix_peak(device, dtype);
  constexpr int64_t kSize = 2048;
  const at::Tensor a = at::randn({kSize, kSize}).to(dtype), b = at::randn({kSize, kSize}).to(dtype);
  const auto product = measure("", 2.0 * kSize * kSize * kSize, [&](int64_t) { at::mm(a, b); });
  const double in_registers =
      dtype == at::kFloat ? bench::fma_peak() : std::max(bench::bf16_pair_peak(), bench::tile_peak());
  return std::max(product.flops / product.least, in_registers * at::get_num_threads());
}

struct Case {
  at::Tensor x, gate_weights, slots;
  RoutingPlan plan;
  std::vector<ExpertWeights> weights;       // used in turn
  std::vector<at::Tensor> tokens, choices;  // of each expert, for the loop
};

Case make_case(const OperatorBench& bench, at::ScalarType dtype) {
  Case made;
  const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(bench.device);
  made.x = at::randn({bench.tokens, bench.hidden}, fp32).to(dtype);
  made.gate_weights = at::rand({bench.tokens, bench.top_k}, fp32);
  made.slots = std::get<1>(at::rand({bench.tokens, bench.experts}, fp32).topk(bench.top_k, 1))
                   .to(at::kInt)
                   .contiguous();
  made.plan = ops::routing_plan(made.slots, bench.experts);
  const int64_t bytes = 3 * bench.experts * bench.hidden * bench.width * made.x.element_size();
  const int64_t sets = std::clamp<int64_t>(kCacheBytes / bytes + 1, 1, 16);
  for (int64_t i = 0; i < sets; ++i) {
    ExpertWeights weights;
    weights.gate_up = at::randn({bench.experts, 2 * bench.width, bench.hidden}, fp32.dtype(dtype)).mul_(0.02);
    weights.down = at::randn({bench.experts, bench.hidden, bench.width}, fp32.dtype(dtype)).mul_(0.02);
    made.weights.push_back(std::move(weights));
  }
  for (int64_t expert = 0; expert < bench.experts; ++expert) {
    const at::Tensor chosen = made.slots.eq(expert).nonzero();
    made.tokens.push_back(chosen.select(1, 0).contiguous());
    made.choices.push_back(chosen.select(1, 1).contiguous());
  }
  return made;
}

// What one would write without these operators: gather, two products and a scatter for each expert.
at::Tensor loop_over_experts(const Case& made, const ExpertWeights& weights, const at::Tensor& x) {
  at::Tensor y = at::zeros_like(x);
  const int64_t width = weights.down.size(2);
  for (size_t expert = 0; expert < made.tokens.size(); ++expert) {
    const at::Tensor& tokens = made.tokens[expert];
    if (tokens.size(0) == 0) continue;
    const auto e = static_cast<int64_t>(expert);
    const at::Tensor hidden = at::linear(x.index_select(0, tokens), weights.gate_up[e]);
    const at::Tensor activated = at::silu(hidden.narrow(1, 0, width)).mul(hidden.narrow(1, width, width));
    const at::Tensor gate =
        made.gate_weights.index({tokens, made.choices[expert]}).to(x.dtype()).unsqueeze(1);
    y = y.index_add(0, tokens, at::linear(activated, weights.down[e]).mul(gate));
  }
  return y;
}

// Gradients of everything, as a training step asks for them.
void backward(const Case& made,
              const std::function<at::Tensor(const at::Tensor&, const ExpertWeights&)>& forward,
              const ExpertWeights& weights, const at::Tensor& dy) {
  at::AutoGradMode grad(true);
  ExpertWeights leaves = weights;
  leaves.gate_up = weights.gate_up.detach().requires_grad_(true);
  leaves.down = weights.down.detach().requires_grad_(true);
  const at::Tensor x = made.x.detach().requires_grad_(true);
  forward(x, leaves).backward(dy);
}

}  // namespace

OperatorBenchResult bench_operators(const OperatorBench& bench) {
  if (bench.top_k > bench.experts) {
    throw UserError(
        Mistake{"--top-k", concat("at most --experts, ", bench.experts), concat(bench.top_k), ""});
  }
  at::NoGradGuard no_grad;
  const at::ScalarType dtype = bench.bf16 ? at::kBFloat16 : at::kFloat;
  const bool gpu = !bench.device.is_cpu();
  OperatorBenchResult result{gpu ? "CUDA" : kernels::cpu_family().name,
                             at::get_num_threads(),
                             measure_peak(dtype, bench.device),
                             {}};
  const Case made = make_case(bench, dtype);
  const at::Tensor dy = at::randn(made.x.sizes(), made.x.options());
  const auto set = [&](int64_t i) -> const ExpertWeights& { return made.weights[i % made.weights.size()]; };
  const auto ours = [&](const at::Tensor& x, const ExpertWeights& weights) {
    return ops::expert_ffn(x, made.gate_weights, made.plan, weights);
  };
  const auto loop = [&](const at::Tensor& x, const ExpertWeights& weights) {
    return loop_over_experts(made, weights, x);
  };
  const double flops =
      6.0 * static_cast<double>(bench.tokens * bench.top_k) * static_cast<double>(bench.hidden * bench.width);
  const auto row = [&](const char* name, double work, const std::function<void(int64_t)>& run) {
    result.rows.push_back(measure(name, work, run, bench.device));
  };
  if (gpu) {
    // The plan is part of the time there, as published figures have it.
    row("routing_plan", 0, [&](int64_t) { ops::routing_plan(made.slots, bench.experts); });
    row("plan and expert_ffn forward", flops, [&](int64_t i) {
      const RoutingPlan plan = ops::routing_plan(made.slots, bench.experts);
      ops::expert_ffn(made.x, made.gate_weights, plan, set(i));
    });
  }
  row("expert_ffn forward", flops, [&](int64_t i) { ours(made.x, set(i)); });
  row("at:: loop forward", flops, [&](int64_t i) { loop(made.x, set(i)); });
  row("expert_ffn forward and backward", 3 * flops, [&](int64_t i) { backward(made, ours, set(i), dy); });
  row("at:: loop forward and backward", 3 * flops, [&](int64_t i) { backward(made, loop, set(i), dy); });
  return result;
}

}  // namespace motley
