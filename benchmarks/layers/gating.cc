#include "benchmarks/layers/gating.h"

#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "benchmarks/memory_meter.h"
#include "motley/layers/moe_options.h"
#include "motley/routing/capacity.h"

namespace motley::bench {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 20;

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

std::unique_ptr<MoeBlock> make_layer(const GatingBench& bench, MoeGating gating) {
  const auto options = layer_options(bench, gating);
  auto layer = bench.device.is_cpu() ? make_moe_layer(options, ParameterInit{}) : make_moe_layer(options);
  move_layer(*layer, bench.device);
  return layer;
}

Measured measure_layer(const GatingBench& bench, const MoeBlock& layer) {
  GateInput input;
  input.x = at::randn({bench.tokens, bench.hidden}, at::TensorOptions().device(bench.device)).to(bench.dtype);
  Measured measured{};
  {
    const MemoryMeter meter(bench.device);
    measured.dropped = layer.forward(input).second.dropped.item<double>();
    measured.bytes = static_cast<double>(meter.peak_bytes());
  }
  measured.timing = measure(
      bench.seconds, [&](int64_t) { layer.forward(input); }, bench.device);
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

std::vector<GatingBatch> bench_batches(const GatingBench& bench, bool padded, double available) {
  const at::NoGradGuard no_grad;
  const auto layer = make_layer(bench, padded ? MoeGating::kStatic : MoeGating::kDynamic);
  std::vector<GatingBatch> batches;
  GatingBench at = bench;
  double best = 0;
  for (int stale = 0; stale < 2 && at.tokens <= kMostTokens; at.tokens *= 2) {
    if (padded && static_layer_bytes(at) > available) break;
    try {
      const Measured measured = measure_layer(at, *layer);
      batches.push_back({at.tokens, measured.timing, measured.bytes});
    } catch (const c10::OutOfMemoryError&) {
      break;
    }
    const double rate = batches.back().tokens_per_second();
    stale = rate > 1.01 * best ? 0 : stale + 1;
    best = std::max(best, rate);
  }
  return batches;
}

GatingResult bench_gating(const GatingBench& bench) {
  const at::NoGradGuard no_grad;
  const Measured dynamic = measure_layer(bench, *make_layer(bench, MoeGating::kDynamic));
  const Measured padded =
      bench.static_too ? measure_layer(bench, *make_layer(bench, MoeGating::kStatic)) : Measured{};
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
