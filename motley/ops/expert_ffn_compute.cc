#include "motley/ops/expert_ffn_compute.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <array>

#include "motley/ops/expert_ffn.h"

namespace motley::ops {
namespace {

// Calls body(weights) between acquire and release of one wave, and releases it if body throws.
template <typename Body>
void with_wave(WeightSource& source, int index, Pass pass, Body&& body) {
  const ExpertWeights weights = source.acquire(index, pass);
  try {
    body(weights);
  } catch (...) {
    source.release(index, pass);
    throw;
  }
  source.release(index, pass);
}

int checked_num_waves(const WeightSource& source) {
  const int num_waves = source.num_waves();
  TORCH_CHECK(num_waves >= 1, "[expert_ffn] expected a weight source of at least one wave, got ", num_waves);
  return num_waves;
}

void add_wave(at::Tensor& sum, const at::Tensor& part) {
  if (sum.defined()) {
    sum.add_(part);
  } else {
    sum = part.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }
}

}  // namespace

ExpertFfnForward compute_expert_ffn(const at::Tensor& x, const at::Tensor& gate_weights,
                                    const RoutingPlan& plan, WeightSource& source, at::ScalarType out_dtype,
                                    bool keep_hidden, const ChosenZeroExperts& zero_experts) {
  TORCH_CHECK(x.dim() == 2, "[expert_ffn] expected x [T, D], got ", x.dim(), " dimensions");
  TORCH_CHECK(gate_weights.defined(), "[expert_ffn] expected gate_weights [T, K], got an undefined tensor");
  at::Tensor y, rows, hidden;
  const int num_waves = checked_num_waves(source);
  if (num_waves == 1 && x.is_cuda()) {
    with_wave(source, 0, Pass::kForward, [&](const ExpertWeights& weights) {
      if (keep_hidden) hidden = at::empty({plan.max_rows(), weights.gate_up.size(1)}, x.options());
      y = expert_ffn_forward(x, gate_weights, plan, weights, out_dtype, hidden, zero_experts);
    });
    return {y, hidden};
  }
  for (int index = 0; index < num_waves; ++index) {
    with_wave(source, index, Pass::kForward, [&](const ExpertWeights& weights) {
      if (!rows.defined()) {
        const std::array sizes = {plan.max_rows(), x.size(1)};
        // Only an expert that is nowhere, or a row that is nobody's, leaves rows unwritten.
        rows =
            weights.place_of_expert.defined() ? at::zeros(sizes, x.options()) : at::empty(sizes, x.options());
        if (keep_hidden) {
          hidden = at::empty({plan.max_rows(), weights.gate_up.size(1)}, x.options());
        }
      }
      expert_rows(x, plan, weights, rows, hidden);
    });
  }
  y = zero_experts.experts.count() > 0
          ? token_sum_with_zero_experts(rows, plan, x, zero_experts.slots, gate_weights, zero_experts.experts,
                                        out_dtype)
          : token_sum(rows, gate_weights, plan, out_dtype);
  return {y, hidden};
}

ExpertFfnGradients compute_expert_ffn_backward(const at::Tensor& dy, const at::Tensor& x,
                                               const at::Tensor& hidden, const at::Tensor& gate_weights,
                                               const RoutingPlan& plan, WeightSource& source,
                                               bool weight_gradients) {
  at::Tensor dx, dgate_weights;
  const int num_waves = checked_num_waves(source);
  for (int index = 0; index < num_waves; ++index) {
    with_wave(source, index, Pass::kBackward, [&](const ExpertWeights& weights) {
      ExpertFfnInputGradients input;
      if (weight_gradients) {
        auto both =
            expert_ffn_backward(dy, x, hidden, gate_weights, plan, weights, source.gradient_buffers(index));
        source.accumulate_gradients(index, both.weights);
        input = std::move(both.input);
      } else {
        input = expert_ffn_backward_input(dy, hidden, gate_weights, plan, weights);
      }
      if (num_waves == 1) {
        dx = input.dx;
        dgate_weights = input.dgate_weights;
      } else {
        add_wave(dx, input.dx);
        add_wave(dgate_weights, input.dgate_weights);
      }
    });
  }
  return {dx.to(x.scalar_type()), dgate_weights};
}

}  // namespace motley::ops
