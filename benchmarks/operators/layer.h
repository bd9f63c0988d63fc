// The expert layers that the operators are measured on.
#pragma once

#include "motley/ops/expert_ffn.h"
#include "motley/ops/operators.h"

namespace motley::bench {

// Numbers in [-scale, scale), made by all threads: the generator's own would take longer than the bench.
at::Tensor random_tensor(at::IntArrayRef sizes, at::ScalarType type, float scale = 1.0f);

// Every expert `rows` rows of shuffled tokens (top-1), or chosen at random (top-k).
RoutingPlan even_plan(int64_t experts, int64_t rows);
RoutingPlan random_plan(int64_t tokens, int64_t experts, int64_t top_k);

struct Layer {
  RoutingPlan plan;
  at::Tensor x, gate_weights, rows;
  ExpertWeights weights;
  double flops;  // of a forward pass
  double bytes;  // of the weights

  Layer(at::ScalarType type, int64_t tokens, int64_t width, int64_t expert_width, int64_t experts,
        int64_t top_k);
  void expert_rows(const at::Tensor& hidden = {});
  void forward(const at::Tensor& hidden = {});
};

}  // namespace motley::bench
