#include "benchmarks/layers/expert_forward.h"

#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "benchmarks/laps.h"
#include "motley/layers/moe_layer.h"
#include "motley/layers/moe_options.h"

namespace motley::bench {
namespace {

std::unique_ptr<MoeBlock> make_block(const ExpertForwardBench& bench, bool zero_experts) {
  MoeLayerOptions options;
  options.gate.hidden_size = bench.hidden;
  options.gate.num_experts = bench.experts;
  options.gate.num_experts_per_tok = bench.top_k;
  if (zero_experts) {
    options.gate.zero_experts = {ZeroExpertKind::kZero, ZeroExpertKind::kCopy};
    options.gate.zero_experts.resize(2 + bench.constant_experts, ZeroExpertKind::kConstant);
  }
  options.expert_width = bench.width;
  options.dtype = bench.dtype;
  auto block = bench.device.is_cpu() ? make_moe_layer(options, ParameterInit{}) : make_moe_layer(options);
  move_layer(*block, bench.device);
  return block;
}

// K different slots a token, drawn with odds of tau to 1 between FFN and zero-computation experts.
Routing draw_routing(const ExpertForwardBench& bench, int64_t tokens, int64_t num_slots, double tau) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(bench.device);
  at::Tensor odds = at::full({num_slots}, 0.0, options);
  odds.narrow(0, 0, bench.experts).fill_(std::log(tau));
  // Gumbel noise: the largest sums are a draw without replacement.
  const at::Tensor logits =
      odds.sub(at::rand({tokens, num_slots}, options).clamp_min(1e-9).log().neg().log());
  const auto [weights, slots] = at::softmax(logits, 1).topk(bench.top_k, 1);
  Routing routing;
  routing.slots = slots.to(at::kInt).contiguous();
  routing.weights = weights.contiguous();
  return routing;
}

at::Tensor forward(const MoeLayer& layer, const at::Tensor& x, const Routing& routing) {
  MoeLayer::InFlight in_flight = layer.start(x, routing);
  layer.compute(in_flight);
  return layer.finish(in_flight);
}

}  // namespace

int64_t num_tokens(const ExpertForwardBench& bench) {
  if (bench.tokens > 0) return bench.tokens;
  const double least = *std::min_element(bench.taus.begin(), bench.taus.end());
  const auto experts = static_cast<double>(bench.experts),
             others = static_cast<double>(2 + bench.constant_experts);
  // Rows of an expert a token: K tau / (tau E + Z), which falls with tau. A twentieth more, for chance.
  const double share = static_cast<double>(bench.top_k) * least / (least * experts + others);
  return static_cast<int64_t>(std::ceil(1.05 * static_cast<double>(bench.rows_per_expert) / share));
}

std::vector<ExpertForwardRow> bench_expert_forward(const ExpertForwardBench& bench) {
  const at::NoGradGuard no_grad;
  const int64_t tokens = num_tokens(bench), slots = bench.experts + 2 + bench.constant_experts;
  const auto vanilla_block = make_block(bench, false), block = make_block(bench, true);
  const auto& vanilla = dynamic_cast<const MoeLayer&>(*vanilla_block);
  const auto& with_zero_experts = dynamic_cast<const MoeLayer&>(*block);
  const at::Tensor x =
      at::randn({tokens, bench.hidden}, at::TensorOptions().device(bench.device)).to(bench.dtype);
  const Routing even = draw_routing(bench, tokens, bench.experts, 1.0);
  std::vector<ExpertForwardRow> rows;
  for (const double tau : bench.taus) {
    const Routing routing = draw_routing(bench, tokens, slots, tau);
    const at::Tensor counts = routing.slots.flatten().bincount({}, slots).narrow(0, 0, bench.experts);
    const auto assigned = static_cast<double>(counts.sum().item<int64_t>());
    // In turn, so that both see the same machine; the first pair of a batch finds the device idle, the very
    // first one warms up.
    const int64_t batch = bench.device.is_cpu() ? 1 : 12;
    std::vector<double> seconds[2], host;
    const double begin = seconds_now();
    for (bool first = true; seconds[0].size() < 5 || seconds_now() - begin < bench.seconds; first = false) {
      Laps laps(bench.device);
      laps.mark();
      for (int64_t i = 0; i < batch; ++i) {
        forward(vanilla, x, even);
        laps.mark();
        forward(with_zero_experts, x, routing);
        laps.mark();
      }
      const std::vector<double> each = laps.seconds(), by_host = laps.host_seconds();
      for (size_t i = first || batch > 1 ? 2 : 0; i < each.size(); ++i) seconds[i % 2].push_back(each[i]);
      for (size_t i = 1; i < by_host.size(); i += 2) host.push_back(by_host[i]);
    }
    ExpertForwardRow row{};
    row.tau = tau;
    row.ffn_experts_per_token = assigned / static_cast<double>(tokens);
    row.least_rows = counts.min().item<int64_t>();
    row.vanilla = summarise(seconds[0]);
    row.moe_plus_plus = summarise(seconds[1]);
    row.host_median = summarise(host).median;
    row.theory = static_cast<double>(bench.top_k) / row.ffn_experts_per_token;
    row.speedup = row.vanilla.median / row.moe_plus_plus.median;
    rows.push_back(row);
  }
  return rows;
}

}  // namespace motley::bench
