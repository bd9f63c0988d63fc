#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>

#include "motley/kernels/cpu/families.h"
#include "motley/ops/operators.h"
#include "motley/ops/outer_cpu.h"
#include "motley/ops/token_sum_cpu.h"
#include "motley/ops/transposed_cpu.h"

namespace motley::ops {
namespace {

using kernels::DType;
using kernels::kMaxLanes;

constexpr int64_t kRowsAhead = 6;  // that are fetched while one is computed

// dgate of each row: its parts <dA, A> by panels of columns, added in order, and <dY, b_down>.
void gate_gradients(const at::Tensor& parts, const at::Tensor& dy, const OptionalTensor& down_bias,
                    const at::Tensor& row_assignment, int64_t top_k, const std::vector<RowRange>& ranges,
                    at::Tensor& dgate_weights) {
  const auto& cpu = kernels::cpu_kernels();
  const int64_t num_parts = parts.size(1);
  const auto source = row_source(dy, row_assignment, top_k, true);
  run_tasks(static_cast<int64_t>(ranges.size()), 0, [&](int64_t task, void*) {
    const RowRange& range = ranges[task];
    for (int64_t r = range.first; r < range.first + range.count; ++r) {
      const float* part = parts.const_data_ptr<float>() + r * num_parts;
      float sum = 0;
      for (int64_t i = 0; i < num_parts; ++i) sum += part[i];
      if (down_bias) {
        const void* row = source.row(r);
        float product = 0;
        cpu.dot_rows(source.type, &row, 1,
                     {place_data(down_bias, range.place), dy.size(1), 1, dy.size(1), &product, 1});
        sum += product;
      }
      dgate_weights.mutable_data_ptr<float>()[source.assignment[r]] = sum;
    }
  });
}

// With parallel rows of no expert here among the token's, they must add nothing.
at::Tensor present_rows(const at::Tensor& token_rows, const std::vector<RowRange>& ranges, int64_t max_rows) {
  std::vector<bool> present(max_rows, false);
  for (const RowRange& range : ranges) {
    std::fill(present.begin() + range.first, present.begin() + range.first + range.count, true);
  }
  at::Tensor kept = at::empty(token_rows.sizes(), token_rows.options());
  const int32_t* from = token_rows.const_data_ptr<int32_t>();
  int32_t* to = kept.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < token_rows.numel(); ++i) to[i] = from[i] >= 0 && present[from[i]] ? from[i] : -1;
  return kept;
}

// One entry for each place: its expert's rows, or none.
std::vector<RowRange> rows_of_places(const at::Tensor& expert_offset, const OptionalTensor& place_of_expert,
                                     int64_t num_places) {
  const int32_t* offsets = expert_offset.const_data_ptr<int32_t>();
  std::vector<RowRange> places;
  for (int64_t place = 0; place < num_places; ++place) places.push_back({-1, place, 0, 0});
  for (int64_t e = 0; e + 1 < expert_offset.size(0); ++e) {
    const int64_t place = place_of_expert ? place_of_expert->const_data_ptr<int32_t>()[e] : e;
    if (place >= 0) places[place] = {e, place, offsets[e], offsets[e + 1] - offsets[e]};
  }
  return places;
}

// Those whose gradients change.
std::vector<RowRange> changed_places(const std::vector<RowRange>& places, bool accumulate) {
  std::vector<RowRange> changed;
  for (const RowRange& range : places) {
    if (range.count > 0 || !accumulate) changed.push_back(range);
  }
  return changed;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> expert_ffn_backward_input_cpu(
    const at::Tensor& dy, const at::Tensor& hidden, const at::Tensor& gate_weights,
    const at::Tensor& row_assignment, const at::Tensor& expert_offset, const at::Tensor& token_rows,
    const at::Tensor& gate_up, const at::Tensor& down, const OptionalTensor& gate_up_bias,
    const OptionalTensor& down_bias, const OptionalTensor& place_of_expert, int64_t activation, double alpha,
    double limit, const OptionalTensor& down_grad, bool accumulate) {
  const auto& cpu = kernels::cpu_kernels();
  const auto type = kernel_type(dy.scalar_type());
  const auto spec = activation_spec(activation, alpha, limit);
  const int64_t max_rows = row_assignment.size(0);
  const int64_t top_k = token_rows.size(1);
  const int64_t model_width = down.size(1);
  const int64_t expert_width = down.size(2);
  const int64_t hidden_width = hidden.size(1);
  const auto ranges = row_ranges(expert_offset, place_of_expert, kTransposedRows);

  at::Tensor dgate_weights = at::zeros(gate_weights.sizes(), gate_weights.options());
  at::Tensor dhidden = at::empty({max_rows, hidden_width}, hidden.options());
  at::Tensor activated = at::empty({max_rows, expert_width}, hidden.options());
  at::Tensor parts =
      at::empty({max_rows, (expert_width + kMaxLanes - 1) / kMaxLanes}, gate_weights.options());

  auto through_activation = [&](const RowRange& range, int64_t first, int count, const float* c, int stride) {
    const void* const h = hidden.const_data_ptr();
    void* const dh = dhidden.mutable_data_ptr();
    void* const a = activated.mutable_data_ptr();
    const int64_t bytes = count * kernels::size_of(type);
    // Pieces of rows that lie far from each other: those of the rows to come are on their way.
    auto fetch_row = [&](int64_t r) __attribute__((always_inline)) {
      if (r >= range.first + range.count) return;
      const int64_t gate = r * hidden_width + first;
      kernels::fetch(kernels::offset(h, type, gate), bytes);
      if (spec.gated()) kernels::fetch(kernels::offset(h, type, gate + expert_width), bytes);
    };
    for (int64_t i = 0; i < kRowsAhead; ++i) fetch_row(range.first + i);
    for (int64_t i = 0; i < range.count; ++i) {
      const int64_t r = range.first + i;
      fetch_row(r + kRowsAhead);
      const float gate_weight =
          gate_weights.const_data_ptr<float>()[row_assignment.const_data_ptr<int32_t>()[r]];
      const int64_t gate = r * hidden_width + first;
      const int64_t up = spec.gated() ? gate + expert_width : gate;
      parts.mutable_data_ptr<float>()[r * parts.size(1) + first / kMaxLanes] = cpu.activate_backward(
          spec, c + i * stride, type, kernels::offset(h, type, gate), kernels::offset(h, type, up),
          gate_weight, count, kernels::offset(dh, type, gate), kernels::offset(dh, type, up),
          kernels::offset(a, type, r * expert_width + first));
    }
  };
  run_transposed(ranges,
                 {row_source(dy, row_assignment, top_k, true), &down, nullptr, nullptr, through_activation});
  gate_gradients(parts, dy, down_bias, row_assignment, top_k, ranges, dgate_weights);

  at::Tensor dx_rows = at::empty({max_rows, model_width}, gate_weights.options());
  run_transposed(ranges, {row_source(dhidden, row_assignment, top_k, false), &gate_up, nullptr, &dx_rows});
  at::Tensor dx = at::empty(dy.sizes(), dy.options());
  token_sum_into(dx_rows, nullptr, place_of_expert ? present_rows(token_rows, ranges, max_rows) : token_rows,
                 dx);
  if (down_grad) {
    at::Tensor out = *down_grad;
    run_outer({{row_source(dy, row_assignment, top_k, true),
                row_source(activated, row_assignment, top_k, false), model_width, expert_width, &out}},
              changed_places(rows_of_places(expert_offset, place_of_expert, down.size(0)), accumulate),
              accumulate);
  }
  return {dx, dgate_weights, dhidden, activated};
}

// out[place] (+)= sum of the rows, each times its gate weight if there are any.
void bias_gradients(const kernels::RowSource& source, int64_t width, const float* gate_weights,
                    const at::Tensor& row_assignment, const std::vector<RowRange>& places, bool accumulate,
                    const at::Tensor& out) {
  const auto& cpu = kernels::cpu_kernels();
  const auto type = kernel_type(out.scalar_type());
  run_tasks(static_cast<int64_t>(places.size()), 0, [&](int64_t task, void*) {
    const RowRange& range = places[task];
    if (accumulate && range.count == 0) return;
    std::vector<const void*> rows(range.count);
    std::vector<float> weights(gate_weights ? range.count : 0);
    for (int64_t i = 0; i < range.count; ++i) {
      rows[i] = source.row(range.first + i);
      if (gate_weights) weights[i] = gate_weights[row_assignment.const_data_ptr<int32_t>()[range.first + i]];
    }
    void* to = kernels::offset(out.mutable_data_ptr(), type, range.place * width);
    cpu.weighted_sum(source.type, rows.data(), gate_weights ? weights.data() : nullptr, range.count, 0, width,
                     type, to, accumulate);
  });
}

void expert_ffn_backward_weight_cpu(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dhidden,
                                    const at::Tensor& activated, const at::Tensor& gate_weights,
                                    const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                                    const OptionalTensor& place_of_expert, int64_t num_places, int64_t top_k,
                                    const at::Tensor& gate_up_grad, const OptionalTensor& down_grad,
                                    const OptionalTensor& gate_up_bias_grad,
                                    const OptionalTensor& down_bias_grad, bool accumulate) {
  const auto places = rows_of_places(expert_offset, place_of_expert, num_places);
  const auto dy_rows = row_source(dy, row_assignment, top_k, true);
  const auto dhidden_rows = row_source(dhidden, row_assignment, top_k, false);
  at::Tensor gate_up_out = gate_up_grad, down_out = down_grad.value_or(at::Tensor());
  std::vector<OuterProduct> products = {
      {dhidden_rows, row_source(x, row_assignment, top_k, true), dhidden.size(1), x.size(1), &gate_up_out}};
  if (down_grad) {
    products.push_back({dy_rows, row_source(activated, row_assignment, top_k, false), dy.size(1),
                        activated.size(1), &down_out});
  }
  run_outer(products, changed_places(places, accumulate), accumulate);
  if (gate_up_bias_grad) {
    bias_gradients(dhidden_rows, dhidden.size(1), nullptr, row_assignment, places, accumulate,
                   *gate_up_bias_grad);
  }
  if (down_bias_grad) {
    bias_gradients(dy_rows, dy.size(1), gate_weights.const_data_ptr<float>(), row_assignment, places,
                   accumulate, *down_bias_grad);
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) {
  m.impl("expert_ffn_backward_input", expert_ffn_backward_input_cpu);
  m.impl("expert_ffn_backward_weight", expert_ffn_backward_weight_cpu);
}

}  // namespace motley::ops
