#include "tests/support/expert_problem.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <random>

#include "tests/support/gpu.h"

namespace motley::test {
namespace {

at::Tensor make_slots(const ExpertProblemOptions& options) {
  // Of MoE++'s kind: after the experts stand zero-computation slots.
  constexpr int32_t kNumZeroExperts = 2;
  const auto num_experts = static_cast<int32_t>(options.num_experts);
  auto slots = at::full({options.spread == Spread::kNoTokens ? 0 : options.num_tokens, options.top_k}, -1,
                        at::TensorOptions().dtype(at::kInt));
  auto* slot = slots.data_ptr<int32_t>();
  std::mt19937_64 random(options.seed);
  std::vector<int32_t> order(num_experts + kNumZeroExperts + 1);
  for (size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<int32_t>(i) - 1;
  }
  for (int64_t t = 0; t < slots.size(0); ++t, slot += options.top_k) {
    std::ranges::shuffle(order, random);
    std::copy_n(order.begin(), std::min<int64_t>(options.top_k, order.size()), slot);
    for (int64_t k = 0; k < options.top_k; ++k) {
      const bool routed = slot[k] >= 0 && slot[k] < num_experts;
      if (options.spread == Spread::kOneGetsAll) {
        slot[k] = k == 0 ? num_experts - 1 : -1;
      } else if (routed && ((options.spread == Spread::kSomeGetNone && slot[k] % 2 == 1) ||
                            options.spread == Spread::kNoRows)) {
        slot[k] = num_experts;
      }
    }
  }
  return slots;
}

}  // namespace

const std::vector<Spread>& all_spreads() {
  static const std::vector<Spread> spreads = {Spread::kRandom, Spread::kOneGetsAll, Spread::kSomeGetNone,
                                              Spread::kNoRows, Spread::kNoTokens};
  return spreads;
}

std::string name_of(Spread spread) {
  switch (spread) {
    case Spread::kRandom:
      return "random";
    case Spread::kOneGetsAll:
      return "one_gets_all";
    case Spread::kSomeGetNone:
      return "some_get_none";
    case Spread::kNoRows:
      return "no_rows";
    case Spread::kNoTokens:
      return "no_tokens";
  }
  return "unknown";
}

at::Tensor random_values(at::IntArrayRef sizes, at::ScalarType dtype, uint64_t seed) {
  return at::empty(sizes, at::kDouble)
      .uniform_(-1, 1, at::make_generator<at::CPUGeneratorImpl>(seed))
      .to(dtype);
}

at::Tensor misaligned(const at::Tensor& tensor) {
  auto shifted = at::empty({tensor.numel() + 1}, tensor.options()).narrow(0, 1, tensor.numel());
  return shifted.copy_(tensor.flatten()).view(tensor.sizes());
}

at::Tensor strided(const at::Tensor& tensor) {
  auto sizes = tensor.sizes().vec();
  sizes.push_back(2);
  return at::full(sizes, 77, tensor.options()).select(-1, 0).copy_(tensor);
}

ExpertProblem make_expert_problem(const ExpertProblemOptions& options) {
  const int64_t num_experts = options.num_experts, width = options.width;
  ExpertProblem problem;
  problem.num_experts = num_experts;
  problem.slots = make_slots(options);
  const int64_t num_tokens = problem.slots.size(0);
  problem.plan = ops::routing_plan(problem.slots, num_experts);
  uint64_t seed = options.seed * 100;
  const auto values = [&](at::IntArrayRef sizes) { return random_values(sizes, options.dtype, ++seed); };
  problem.x = values({num_tokens, width});
  problem.dy = values({num_tokens, width});
  problem.gate_weights = random_values(problem.slots.sizes(), at::kFloat, ++seed);
  auto& weights = problem.weights;
  weights.activation.kind = options.activation;
  weights.activation.limit = 0.9;  // low enough for the clamped kind to clamp
  const int64_t hidden_rows = weights.activation.hidden_rows(options.expert_width);
  weights.gate_up = values({num_experts, hidden_rows, width});
  weights.down = values({num_experts, width, options.expert_width});
  if (options.bias) {
    weights.gate_up_bias = values({num_experts, hidden_rows});
    weights.down_bias = values({num_experts, width});
  }
  return problem;
}

std::vector<at::Tensor> inputs_of(const ExpertProblem& problem) {
  std::vector<at::Tensor> inputs = {problem.x, problem.gate_weights, problem.weights.gate_up,
                                    problem.weights.down};
  if (problem.weights.gate_up_bias.defined()) {
    inputs.push_back(problem.weights.gate_up_bias);
    inputs.push_back(problem.weights.down_bias);
  }
  return inputs;
}

ExpertWeights weights_of(const std::vector<at::Tensor>& inputs, ExpertWeights weights) {
  weights.gate_up = inputs[2];
  weights.down = inputs[3];
  if (inputs.size() > 4) {
    weights.gate_up_bias = inputs[4];
    weights.down_bias = inputs[5];
  }
  return weights;
}

ExpertProblem on_gpu(const ExpertProblem& problem) {
  const auto move = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.to(at::kCUDA) : tensor; };
  ExpertProblem moved = problem;
  auto& weights = moved.weights;
  for (at::Tensor* tensor :
       {&moved.x, &moved.slots, &moved.gate_weights, &moved.dy, &weights.gate_up, &weights.down,
        &weights.gate_up_bias, &weights.down_bias, &weights.place_of_expert}) {
    *tensor = move(*tensor);
  }
  moved.plan = ops::routing_plan(moved.slots, moved.num_experts);
  return moved;
}

}  // namespace motley::test
