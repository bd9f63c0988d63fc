#include "benchmarks/layers/gating.h"

#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <memory>

#include "benchmarks/memory_meter.h"
#include "motley/layers/moe_options.h"
#include "motley/routing/capacity.h"

namespace motley::bench {
namespace {

MoeLayerOptions layer_options(const GatingBench& bench, MoeGating gating) {
  MoeLayerOptions options;
  options.gate.hidden_size = bench.hidden;
  options.gate.num_experts = bench.experts;
  options.gate.num_experts_per_tok = bench.top_k;
  if (gating == MoeGating::kStatic) {
    options.gate.capacity_factor =
        bench.capacity * static_cast<double>(bench.experts) / static_cast<double>(bench.top_k);
    options.gate.capacity_in_inference = true;
  }
  options.gating = gating;
  options.expert_width = bench.width;
  options.dtype = bench.dtype;
  return options;
}

struct Measured {
  Timing timing;
  double bytes, dropped;
};

Measured measure_layer(const GatingBench& bench, MoeGating gating, const GateInput& input) {
  const auto layer = make_moe_layer(layer_options(bench, gating), ParameterInit{});
  Measured measured{};
  {
    const MemoryMeter meter;
    measured.dropped = layer->forward(input).second.dropped.item<double>();
    measured.bytes = static_cast<double>(meter.peak_bytes());
  }
  measured.timing = measure(bench.seconds, [&](int64_t) { layer->forward(input); });
  return measured;
}

}  // namespace

double static_layer_bytes(const GatingBench& bench) {
  const double places =
      bench.capacity * static_cast<double>(bench.tokens) * static_cast<double>(bench.experts);
  const auto tokens = static_cast<double>(bench.tokens), hidden = static_cast<double>(bench.hidden),
             width = static_cast<double>(bench.width);
  // A mask in fp32 and, where that is smaller, in the layer's dtype; rows in and out, both products.
  return places * (8 * tokens + 4 * (2 * hidden + 4 * width));
}

GatingResult bench_gating(const GatingBench& bench) {
  const at::NoGradGuard no_grad;
  GateInput input;
  input.x = at::randn({bench.tokens, bench.hidden}).to(bench.dtype);
  const Measured dynamic = measure_layer(bench, MoeGating::kDynamic, input);
  const Measured padded = measure_layer(bench, MoeGating::kStatic, input);
  GatingResult result{};
  result.waste = bench.capacity * static_cast<double>(bench.experts) / static_cast<double>(bench.top_k);
  result.places = slot_capacity(layer_options(bench, MoeGating::kStatic).gate, bench.tokens).ffn;
  result.statically = padded.timing;
  result.dynamically = dynamic.timing;
  result.static_bytes = padded.bytes;
  result.dynamic_bytes = dynamic.bytes;
  result.dropped = padded.dropped;
  return result;
}

}  // namespace motley::bench
