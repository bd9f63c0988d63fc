#include "benchmarks/operators/one_layer.h"

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

#include "benchmarks/gpu_ceilings.h"
#include "motley/ops/expert_ffn.h"

namespace motley::bench {
namespace {

constexpr int64_t kCacheBytes = int64_t{256} << 20;  // more than any cache holds

struct Case {
  at::Tensor x, gate_weights, slots;
  RoutingPlan plan;
  double bytes = 0;                         // of the weights of experts that have rows
  std::vector<ExpertWeights> weights;       // used in turn
  std::vector<at::Tensor> tokens, choices;  // of each expert, for the loop
};

Case make_case(const OneLayer& layer, at::ScalarType dtype) {
  Case made;
  const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(layer.device);
  made.x = at::randn({layer.tokens, layer.hidden}, fp32).to(dtype);
  made.gate_weights = at::rand({layer.tokens, layer.top_k}, fp32);
  made.slots = std::get<1>(at::rand({layer.tokens, layer.experts}, fp32).topk(layer.top_k, 1))
                   .to(at::kInt)
                   .contiguous();
  made.plan = ops::routing_plan(made.slots, layer.experts);
  const int64_t bytes = 3 * layer.experts * layer.hidden * layer.width * made.x.element_size();
  const int64_t sets = std::clamp<int64_t>(kCacheBytes / bytes + 1, 1, 16);
  for (int64_t i = 0; i < sets; ++i) {
    ExpertWeights weights;
    weights.gate_up = at::randn({layer.experts, 2 * layer.width, layer.hidden}, fp32.dtype(dtype)).mul_(0.02);
    weights.down = at::randn({layer.experts, layer.hidden, layer.width}, fp32.dtype(dtype)).mul_(0.02);
    made.weights.push_back(std::move(weights));
  }
  for (int64_t expert = 0; expert < layer.experts; ++expert) {
    const at::Tensor chosen = made.slots.eq(expert).nonzero();
    if (chosen.size(0) > 0) made.bytes += static_cast<double>(bytes) / static_cast<double>(layer.experts);
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

double product_peak(at::ScalarType type, c10::Device device) {
  if (!device.is_cpu()) return gpu_matrix_peak(device, type);
  constexpr int64_t kSize = 2048;
  const at::Tensor a = at::randn({kSize, kSize}).to(type), b = at::randn({kSize, kSize}).to(type);
  return 2.0 * kSize * kSize * kSize / measure(1, [&](int64_t) { at::mm(a, b); }).least;
}

void bench_one_layer(const OperatorBench& bench, at::ScalarType type, const OneLayer& layer) {
  const at::NoGradGuard no_grad;
  const Case made = make_case(layer, type);
  const at::Tensor dy = at::randn(made.x.sizes(), made.x.options());
  const auto set = [&](int64_t i) -> const ExpertWeights& { return made.weights[i % made.weights.size()]; };
  const auto ours = [&](const at::Tensor& x, const ExpertWeights& weights) {
    return ops::expert_ffn(x, made.gate_weights, made.plan, weights);
  };
  const auto loop = [&](const at::Tensor& x, const ExpertWeights& weights) {
    return loop_over_experts(made, weights, x);
  };
  const Work work{6.0 * static_cast<double>(layer.tokens * layer.top_k * layer.hidden * layer.width),
                  made.bytes};
  const auto row = [&](const char* name, double passes, const Run& run) {
    bench.report({name,
                  type,
                  measure(bench.seconds, run, layer.device),
                  {passes * work.flops, passes * work.bytes},
                  bench.peak(type),
                  bench.read});
  };
  if (!layer.device.is_cpu()) {
    // The plan is part of the time there, as published figures have it.
    row("routing_plan", 0, [&](int64_t) { ops::routing_plan(made.slots, layer.experts); });
    row("plan and expert_ffn forward", 1, [&](int64_t i) {
      const RoutingPlan plan = ops::routing_plan(made.slots, layer.experts);
      ops::expert_ffn(made.x, made.gate_weights, plan, set(i));
    });
  }
  row("expert_ffn forward", 1, [&](int64_t i) { ours(made.x, set(i)); });
  row("at:: loop forward", 1, [&](int64_t i) { loop(made.x, set(i)); });
  row("expert_ffn forward and backward", 3, [&](int64_t i) { backward(made, ours, set(i), dy); });
  row("at:: loop forward and backward", 3, [&](int64_t i) { backward(made, loop, set(i), dy); });
}

}  // namespace motley::bench
