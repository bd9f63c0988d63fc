// Speed of the expert layer for 1 to 64 tokens, as a share of the bandwidth floor: bytes of the chosen
// experts' weights over the read bandwidth of the same run. Layers follow each other in a CUDA graph, with
// other weights and another routing each, so that the cache holds none.
// Usage: decode_bench [D,F,E,K ...]
#include <cstdio>
#include <memory>
#include <set>

#include "benchmarks/cuda/bench_tools.cuh"
#include "motley/kernels/cuda/expert_layer.h"

namespace {

using namespace motley::cuda;
using namespace motley::cuda::bench;

constexpr int kLayers = 32, kWeightSets = 3;

__global__ void __launch_bounds__(512) read_all(const uint4* data, size_t count, unsigned* sum) {
  unsigned mine = 0;
  const size_t step = size_t(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += 8 * step) {
    uint4 value[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) value[j] = i + j * step < count ? __ldcs(data + i + j * step) : uint4{};
#pragma unroll
    for (int j = 0; j < 8; ++j) mine ^= value[j].x ^ value[j].y ^ value[j].z ^ value[j].w;
  }
  if (mine == 0x12345678) *sum = mine;
}

double read_bandwidth() {  // bytes per ms
  const size_t bytes = size_t(4) << 30;
  Buffer<char> data(bytes);
  Buffer<unsigned> sum(1);
  MOTLEY_CUDA_CHECK(cudaMemset(data.data, 1, bytes));
  double best = 1e30;
  for (int blocks : {264, 528, 1056})
    best = std::min(best, time_ms([&] {
                            read_all<<<blocks, 512>>>(reinterpret_cast<const uint4*>(data.data), bytes / 16,
                                                      sum.data);
                          }).median);
  return bytes / best;
}

struct Shape {
  int D, F, E, K;
};

void measure(const Shape& s, double bandwidth) {
  const auto [D, F, E, K] = s;
  std::vector<std::unique_ptr<Buffer<bf16>>> up, down;
  for (int i = 0; i < kWeightSets; ++i) {
    up.push_back(std::make_unique<Buffer<bf16>>(size_t(E) * 2 * F * D, 0.02f, 5 + i));
    down.push_back(std::make_unique<Buffer<bf16>>(size_t(E) * F * D, 0.02f, 55 + i));
  }
  cudaStream_t stream;
  MOTLEY_CUDA_CHECK(cudaStreamCreate(&stream));
  for (const int T : {1, 2, 4, 8, 16, 32, 64}) {
    const int N = T * K;
    const ExpertShape shape{T, K, E, E, D, F, N};
    Buffer<bf16> x(size_t(T) * D, 1, 3), y(size_t(T) * D);
    Buffer<float> gate_weights(N);
    const std::vector<float> weights(N, 1.f / K);
    MOTLEY_CUDA_CHECK(cudaMemcpy(gate_weights.data, weights.data(), N * 4, cudaMemcpyHostToDevice));
    std::vector<int> all_slots;
    double bytes = 0;
    for (int i = 0; i < kLayers; ++i) {
      const std::vector<int> slots = make_slots(T, E, K, "uniform", 100 + i);
      bytes += std::set<int>(slots.begin(), slots.end()).size() * 6. * D * F;
      all_slots.insert(all_slots.end(), slots.begin(), slots.end());
    }
    Buffer<int> slots(all_slots.size()), row_assignment(N), expert_offset(E + 1), token_rows(N);
    MOTLEY_CUDA_CHECK(
        cudaMemcpy(slots.data, all_slots.data(), all_slots.size() * sizeof(int), cudaMemcpyHostToDevice));
    Buffer<char> schedule(tile_schedule_bytes(N, E)), plan_workspace(routing_plan_workspace_bytes(N, E)),
        workspace(expert_layer_forward_workspace_bytes(shape));
    ExpertLayer layer{
        Family::kSm90,
        shape,
        {row_assignment.data, expert_offset.data, nullptr, take_tile_schedule(N, E, schedule.data)},
        token_rows.data,
        Activation{},
        {},
        {},
        {},
        {}};
    enum Way { kFromSlots, kFromPlan, kManyTokens };
    const auto run = [&](Way way) {
      for (int i = 0; i < kLayers; ++i) {
        layer.gate_up = {up[i % kWeightSets]->data, 2l * F * D};
        layer.down = {down[i % kWeightSets]->data, long(D) * F};
        ExpertLayerForward forward{x.data, D, gate_weights.data, nullptr, y.data};
        if (way == kFromSlots) forward.slots = slots.data + i * N;
        forward.many_tokens = way == kManyTokens;
        if (way != kFromSlots)
          routing_plan(slots.data + i * N, N, E, {row_assignment.data, expert_offset.data, token_rows.data},
                       layer.plan.schedule, plan_workspace.data, stream);
        expert_layer_forward(layer, forward, workspace.data, stream);
      }
    };
    std::printf("%d,%d,%d,%d T=%d: floor %.1f us a layer;", D, F, E, K, T, bytes / bandwidth * 1e3 / kLayers);
    for (const Way way : {kFromSlots, kFromPlan, kManyTokens}) {
      cudaGraph_t graph;
      cudaGraphExec_t executable;
      MOTLEY_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      run(way);
      MOTLEY_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
      MOTLEY_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
      const Timing timing =
          time_ms([&] { MOTLEY_CUDA_CHECK(cudaGraphLaunch(executable, stream)); }, 9, 2, stream);
      std::printf(" %s %.1f us (%.1f to %.1f) = %.0f %%;",
                  way == kFromSlots  ? "one launch"
                  : way == kFromPlan ? "plan apart"
                                     : "path for many tokens",
                  timing.median * 1e3 / kLayers, timing.low * 1e3 / kLayers, timing.high * 1e3 / kLayers,
                  100 * bytes / bandwidth / timing.median);
      MOTLEY_CUDA_CHECK(cudaGraphExecDestroy(executable));
      MOTLEY_CUDA_CHECK(cudaGraphDestroy(graph));
    }
    std::printf("\n");
  }
  MOTLEY_CUDA_CHECK(cudaStreamDestroy(stream));
}

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::vector<Shape> shapes;
  for (int i = 1; i < count; ++i) {
    Shape s;
    if (std::sscanf(arguments[i], "%d,%d,%d,%d", &s.D, &s.F, &s.E, &s.K) == 4) shapes.push_back(s);
  }
  if (shapes.empty()) shapes = {{2048, 768, 128, 8}, {4096, 14336, 8, 2}, {2048, 1024, 64, 8}};
  try {
    const double bandwidth = read_bandwidth();
    std::printf("read bandwidth %.2f TB/s\n", bandwidth * 1e-9);
    for (const Shape& shape : shapes) measure(shape, bandwidth);
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    return 1;
  }
}
