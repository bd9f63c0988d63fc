// Experts with and without a feed-forward network in one sum, for few tokens (a single launch in bf16) and
// many, and sizes that only the plain kernels take.
#include "tests/support/zero_expert_sum.h"

#include <ATen/core/grad_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAGuard.h>

#include "motley/layers/moe_layer.h"
#include "motley/layers/moe_options.h"
#include "motley/ops/expert_ffn.h"
#include "tests/support/gpu.h"

namespace motley::test {
namespace {

using ZeroExpertSumOnGpu = OnGpu;

TEST_F(ZeroExpertSumOnGpu, AgreesWithTheDefinition) {
  for (const auto& precision : gpu_precisions()) {
    for (const auto spread : all_spreads()) {
      for (const int64_t num_tokens : {1, 6, 64, 300}) {
        for (const int64_t width : {37, 72}) {
          for (const auto& kinds : kinds_to_test()) {
            SCOPED_TRACE(precision.name + " " + name_of(spread) + " tokens " + std::to_string(num_tokens) +
                         " width " + std::to_string(width));
            const auto problem = make_expert_problem({.dtype = precision.dtype,
                                                      .spread = spread,
                                                      .num_tokens = num_tokens,
                                                      .top_k = 4,
                                                      .width = width,
                                                      .expert_width = width == 37 ? 19 : 40});
            check_zero_expert_sum(problem, kinds, precision.dtype, precision.tolerance, at::kCUDA);
            if (num_tokens == 6)
              check_zero_expert_sum(problem, kinds, at::kFloat, precision.tolerance, at::kCUDA);
          }
        }
      }
    }
  }
}

// Wide rows, more choices than a warp has lanes, and so many tokens that a warp takes one each.
TEST_F(ZeroExpertSumOnGpu, AgreesWithTheDefinitionForEverySize) {
  struct Size {
    int64_t num_tokens, top_k, num_experts, width;
  };
  for (const Size& size :
       {Size{5, 2, 3, 3000}, Size{40, 37, 60, 64}, Size{6000, 2, 4, 40}, Size{5000, 3, 4, 9}}) {
    for (const auto& precision : gpu_precisions()) {
      SCOPED_TRACE(precision.name + " tokens " + std::to_string(size.num_tokens) + " width " +
                   std::to_string(size.width));
      check_zero_expert_sum(make_expert_problem({.dtype = precision.dtype,
                                                 .num_tokens = size.num_tokens,
                                                 .top_k = size.top_k,
                                                 .num_experts = size.num_experts,
                                                 .width = size.width,
                                                 .expert_width = 16}),
                            kinds_to_test()[0], precision.dtype, precision.tolerance, at::kCUDA);
    }
  }
}

TEST_F(ZeroExpertSumOnGpu, LeavesAbsentExpertsOut) {
  for (const auto& precision : gpu_precisions()) {
    for (const int64_t num_tokens : {7, 64, 200}) {
      for (const int64_t width : {37, 64}) {
        SCOPED_TRACE(precision.name + " width " + std::to_string(width));
        auto problem = make_expert_problem(
            {.dtype = precision.dtype, .num_tokens = num_tokens, .width = width, .expert_width = width});
        problem.weights.place_of_expert = at::tensor({3, -1, 0, 2}, at::TensorOptions().dtype(at::kInt));
        check_zero_expert_sum(problem, kinds_to_test()[0], precision.dtype, precision.tolerance, at::kCUDA);
      }
    }
  }
}

// The layer in inference needs no plan, and a graph of it sees what its inputs hold when it is replayed.
TEST_F(ZeroExpertSumOnGpu, LayerRunsWithoutAPlanInAGraph) {
  const at::NoGradGuard no_grad;
  MoeLayerOptions options;
  options.gate.hidden_size = 64;
  options.gate.num_experts = 6;
  options.gate.num_experts_per_tok = 3;
  options.gate.zero_experts = {ZeroExpertKind::kZero, ZeroExpertKind::kCopy, ZeroExpertKind::kConstant};
  options.expert_width = 32;
  options.dtype = at::kBFloat16;
  auto block = make_moe_layer(options, ParameterInit{.std = 0.3});
  block->visit("", [](const std::string&, at::Tensor& tensor, TensorRole) { tensor = tensor.cuda(); });
  const auto& layer = dynamic_cast<const MoeLayer&>(*block);
  const auto random = [](uint64_t seed) { return random_values({20, 64}, at::kBFloat16, seed).cuda(); };
  GateInput input;
  input.x = random(1);
  MoeLayer::InFlight in_flight = layer.start(input.x, layer.route(input));
  layer.compute(in_flight);
  EXPECT_FALSE(in_flight.plan.has_value());
  at::Tensor y = layer.finish(in_flight);

  at::cuda::CUDAGraph graph;
  {
    c10::cuda::getCurrentCUDAStream().synchronize();
    const c10::cuda::CUDAStreamGuard side(c10::cuda::getStreamFromPool());
    graph.capture_begin();
    y = layer.forward(input).first;
    graph.capture_end();
  }
  for (const uint64_t seed : {2, 3, 4}) {
    input.x.copy_(random(seed));
    graph.replay();
    expect_same_bits("replayed", y, layer.forward(input).first);
  }
}

}  // namespace
}  // namespace motley::test
