#include "benchmarks/operators/layer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/topk.h>

namespace motley::bench {

at::Tensor random_tensor(at::IntArrayRef sizes, at::ScalarType type, float scale) {
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

RoutingPlan even_plan(int64_t experts, int64_t rows) {
  const at::Tensor slots = at::randn({experts * rows}).argsort().remainder(experts).to(at::kInt).unsqueeze(1);
  return ops::routing_plan(slots.contiguous(), experts);
}

RoutingPlan random_plan(int64_t tokens, int64_t experts, int64_t top_k) {
  const at::Tensor slots = std::get<1>(at::rand({tokens, experts}).topk(top_k, 1)).to(at::kInt).contiguous();
  return ops::routing_plan(slots, experts);
}

Layer::Layer(at::ScalarType type, int64_t tokens, int64_t width, int64_t expert_width, int64_t experts,
             int64_t top_k)
    : plan(random_plan(tokens, experts, top_k)),
      x(random_tensor({tokens, width}, type)),
      gate_weights(at::rand({tokens, top_k})),
      rows(at::empty({tokens * top_k, width}, x.options())),
      flops(6.0 * static_cast<double>(tokens * top_k * width * expert_width)),
      bytes(3.0 * static_cast<double>(experts * width * expert_width) *
            static_cast<double>(x.element_size())) {
  weights.gate_up = random_tensor({experts, 2 * expert_width, width}, type, 0.02f);
  weights.down = random_tensor({experts, width, expert_width}, type, 0.02f);
}

void Layer::expert_rows(const at::Tensor& hidden) {
  hidden.defined() ? ops::expert_rows(x, plan, weights, rows, hidden)
                   : ops::expert_rows(x, plan, weights, rows);
}

void Layer::forward(const at::Tensor& hidden) {
  expert_rows(hidden);
  ops::token_sum(rows, gate_weights, plan);
}

}  // namespace motley::bench
