// The path for a few tokens against the path for many, over the same inputs.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>

#include "motley/kernels/cuda/expert_layer.h"
#include "tests/kernels_cuda/reference.cuh"
#include "tests/kernels_cuda/tests.h"
#include "tests/kernels_cuda/values.h"

namespace motley::cuda::test {
namespace {

struct Case {
  int tokens, width, expert_width, experts, top_k;
  ActivationKind activation = ActivationKind::kSwiGlu;
  bool places = false, bias = false;
  int used_experts = 0;  // 0: all, -1: none with weights
  bool zero_experts = false;
  bool one_row = false;  // no expert is chosen twice: the sums of tokens come with the second product
};

std::mt19937 generator(5);

// Launches of four streams at once, two of them of graphs, beside work that takes multiprocessors away. Those
// of a stream follow a copy of x and are followed by another that spoils it.
void check_overlap(Report& report, const ExpertLayer& layer, ExpertLayerForward forward, size_t x_bytes,
                   const std::vector<float>& wanted, int rounds) {
  constexpr int kStreams = 4, kGraphs = 2;
  const size_t workspace_bytes = expert_layer_forward_workspace_bytes(layer.shape);
  std::vector<std::unique_ptr<DeviceArray<char>>> workspaces, inputs;
  std::vector<std::unique_ptr<DeviceArray<float>>> results;  // of a round each, or of all launches of a graph
  DeviceArray<char> other(64 << 20), spoiled(x_bytes);
  cudaStream_t streams[kStreams], busy;
  cudaGraphExec_t executables[kGraphs];
  MOTLEY_CUDA_CHECK(cudaStreamCreateWithFlags(&busy, cudaStreamNonBlocking));
  for (int i = 0; i < kStreams; ++i) {
    workspaces.push_back(std::make_unique<DeviceArray<char>>(workspace_bytes));
    inputs.push_back(std::make_unique<DeviceArray<char>>(x_bytes));
    MOTLEY_CUDA_CHECK(cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking));
  }
  for (int i = 0; i < kStreams * rounds; ++i)
    results.push_back(std::make_unique<DeviceArray<float>>(wanted.size()));
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  forward.y_fp32 = true;
  const void* x = forward.x;
  const auto launch = [&](int i, int round, cudaStream_t stream) {
    forward.x = inputs[i]->get();
    forward.y = results[i * rounds + round]->get();
    MOTLEY_CUDA_CHECK(cudaMemcpyAsync(inputs[i]->get(), x, x_bytes, cudaMemcpyDeviceToDevice, stream));
    expert_layer_forward(layer, forward, workspaces[i]->get(), stream);
    MOTLEY_CUDA_CHECK(
        cudaMemcpyAsync(inputs[i]->get(), spoiled.get(), x_bytes, cudaMemcpyDeviceToDevice, stream));
  };
  for (int i = 0; i < kGraphs; ++i) {  // captured in one stream, launched in others
    cudaGraph_t graph;
    MOTLEY_CUDA_CHECK(cudaStreamBeginCapture(busy, cudaStreamCaptureModeThreadLocal));
    for (int round = 0; round < rounds; ++round) launch(i, round, busy);
    MOTLEY_CUDA_CHECK(cudaStreamEndCapture(busy, &graph));
    MOTLEY_CUDA_CHECK(cudaGraphInstantiate(&executables[i], graph, 0));
    MOTLEY_CUDA_CHECK(cudaGraphDestroy(graph));
  }
  for (int round = 0; round < rounds; ++round) {
    MOTLEY_CUDA_CHECK(cudaMemsetAsync(other.get(), round, other.bytes(), busy));
    if (round % 4 == 0)
      for (int i = 0; i < kGraphs; ++i) MOTLEY_CUDA_CHECK(cudaGraphLaunch(executables[i], streams[i]));
    for (int i = kGraphs; i < kStreams; ++i) launch(i, round, streams[i]);
  }
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  int wrong = 0;
  for (const auto& y : results)
    wrong += std::memcmp(y->host().data(), wanted.data(), wanted.size() * sizeof(float)) != 0;
  report.check(wrong == 0, "the same bits from overlapping launches");
  for (cudaGraphExec_t executable : executables) MOTLEY_CUDA_CHECK(cudaGraphExecDestroy(executable));
  for (cudaStream_t stream : streams) MOTLEY_CUDA_CHECK(cudaStreamDestroy(stream));
  MOTLEY_CUDA_CHECK(cudaStreamDestroy(busy));
}

// More graphs, one after the other, and more streams than there are sets of counters.
void check_counters_return(Report& report) {
  constexpr int kMany = 5000;
  const ExpertShape shape{1, 1, 1, 1, 8, 8, 1};
  DeviceArray<uint16_t> x(8), gate_up(2 * 8 * 8), down(8 * 8), y(8);
  DeviceArray<float> gate_weights(1);
  DeviceArray<int> slots(std::vector<int>{0});
  DeviceArray<char> workspace(expert_layer_forward_workspace_bytes(shape));
  const ExpertLayer layer{Family::kSm90,    shape, {}, nullptr, {}, {gate_up.get(), 128},
                          {down.get(), 64}, {},    {}};
  ExpertLayerForward forward{x.get(), 8, gate_weights.get(), nullptr, y.get()};
  forward.slots = slots.get();
  try {
    for (int i = 0; i < kMany; ++i) {
      cudaStream_t stream;
      cudaGraph_t graph;
      MOTLEY_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      if (i % 2 == 0) {
        MOTLEY_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        expert_layer_forward(layer, forward, workspace.get(), stream);
        MOTLEY_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
        MOTLEY_CUDA_CHECK(cudaGraphDestroy(graph));
      }
      expert_layer_forward(layer, forward, workspace.get(), stream);
      MOTLEY_CUDA_CHECK(cudaStreamDestroy(stream));
    }
    MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
    report.check(true, "counters come back");
  } catch (const std::exception& error) {
    std::printf("  %s\n", error.what());
    report.check(false, "counters come back");
  }
}

void check(Report& report, const Case& c, int overlaps) {
  const int T = c.tokens, D = c.width, F = c.expert_width, E = c.experts, K = c.top_k, N = T * K;
  const Activation activation{c.activation, 1.5f, 1.0f};
  const int G = activation.hidden_width(F);
  const long gap = c.places ? 64 : 0, up_stride = long(G) * D + gap, down_stride = long(D) * F + gap;
  std::vector<int> host_slots(N), host_places(E);
  std::vector<int> shuffled(E);
  std::iota(shuffled.begin(), shuffled.end(), 0);
  std::shuffle(shuffled.begin(), shuffled.end(), generator);
  for (int& slot : host_slots) {
    if (c.used_experts < 0) {
      slot = c.zero_experts ? E + static_cast<int>(generator() % 4) : -1;
      continue;
    }
    slot = c.one_row ? shuffled[&slot - host_slots.data()]
                     : static_cast<int>(generator() % (c.used_experts ? c.used_experts : E));
    if (c.places && generator() % 5 == 0) slot = generator() % 2 ? -1 : E;
    if (c.zero_experts && generator() % 2 == 0) slot = E + static_cast<int>(generator() % 4);
  }
  for (int e = 0; e < E; ++e) host_places[e] = e % 4 == 2 ? -1 : E - 1 - e;
  std::vector<float> host_weights(N);
  for (float& weight : host_weights) weight = 0.1f + generator() % 1000 * 1e-3f;

  DeviceArray<uint16_t> x(random_values(generator, DataType::kBf16, T * (D + gap), 1)),
      gate_up(random_values(generator, DataType::kBf16, E * up_stride, 1 / std::sqrt(D))),
      down(random_values(generator, DataType::kBf16, E * down_stride, 1 / std::sqrt(F))),
      up_bias(random_values(generator, DataType::kBf16, size_t(E) * G, 0.5)),
      down_bias(random_values(generator, DataType::kBf16, size_t(E) * D, 0.5)),
      constant(random_values(generator, DataType::kBf16, 2 * D, 1)),
      constant_gate(random_values(generator, DataType::kBf16, 4 * D, 1 / std::sqrt(D)));
  DeviceArray<float> gate_weights(host_weights);
  DeviceArray<int> slots(host_slots), places(host_places), row_assignment(N), expert_offset(E + 1),
      token_rows(N);
  DeviceArray<char> schedule_memory(tile_schedule_bytes(N, E)),
      plan_workspace(routing_plan_workspace_bytes(N, E));
  const TileSchedule schedule = take_tile_schedule(N, E, schedule_memory.get());
  routing_plan(slots.get(), N, E, {row_assignment.get(), expert_offset.get(), token_rows.get()}, schedule,
               plan_workspace.get(), nullptr);
  if (c.places) tile_schedule(expert_offset.get(), E, places.get(), schedule, nullptr);
  const ExpertShape shape{T, K, E, E, D, F, N};
  ExpertLayer layer{Family::kSm90,
                    shape,
                    {row_assignment.get(), expert_offset.get(), c.places ? places.get() : nullptr, schedule},
                    token_rows.get(),
                    activation,
                    {gate_up.get(), up_stride},
                    {down.get(), down_stride},
                    {c.bias ? up_bias.get() : nullptr, G},
                    {c.bias ? down_bias.get() : nullptr, D}};
  ZeroExpertLayer zero{x.get(), Element::kBFloat16, slots.get(),    gate_weights.get(),  T, K, D, E, 4,
                       2,       Element::kBFloat16, constant.get(), constant_gate.get(), {}};
  const short gives[] = {1, kGivesNothing, 0, kGivesX};
  std::copy(gives, gives + 4, zero.gives);
  report.check(few_tokens(layer.family, shape, &zero), "few tokens");
  zero.parameters = Element::kFloat32;
  report.check(!few_tokens(layer.family, shape, &zero), "not with parameters in fp32");
  zero.parameters = Element::kBFloat16;

  DeviceArray<char> workspace(expert_layer_forward_workspace_bytes(shape));
  DeviceArray<float> expected(size_t(T) * D);
  ExpertLayerForward forward{x.get(), D + gap, gate_weights.get(), nullptr, expected.get(), true};
  if (c.zero_experts) forward.zero_experts = &zero;
  forward.many_tokens = true;
  expert_layer_forward(layer, forward, workspace.get(), nullptr);
  forward.many_tokens = false;
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  const std::vector<float> wanted = expected.host();
  double squares = 0;
  for (float value : wanted) squares += double(value) * value;
  const float floor = 0.02f * std::sqrt(squares / std::max<size_t>(1, wanted.size()));

  std::vector<float> before;
  for (const bool from_slots : {true, false}) {
    DeviceArray<char> poisoned(workspace.bytes());
    DeviceArray<float> y(wanted.size());
    DeviceArray<uint16_t> rounded(wanted.size());
    forward.slots = from_slots ? slots.get() : nullptr;
    layer.plan.row_assignment = from_slots ? nullptr : row_assignment.get();
    layer.plan.expert_offset = from_slots ? nullptr : expert_offset.get();
    forward.y = y.get(), forward.y_fp32 = true;
    expert_layer_forward(layer, forward, poisoned.get(), nullptr);
    forward.y = rounded.get(), forward.y_fp32 = false;
    expert_layer_forward(layer, forward, poisoned.get(), nullptr);
    MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
    const std::vector<float> got = y.host();
    const std::vector<uint16_t> got_rounded = rounded.host();
    size_t bad = 0, bad_rounded = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      bad += !(std::abs(got[i] - wanted[i]) <= floor + 0.01f * std::abs(wanted[i]));
      bad_rounded += got_rounded[i] != from_float(DataType::kBf16, got[i]);
    }
    if (bad || bad_rounded)
      std::printf("  %zu of %zu differ, %zu when rounded\n", bad, got.size(), bad_rounded);
    report.check(bad == 0, from_slots ? "y from slots" : "y from a plan");
    report.check(bad_rounded == 0, "y in bf16");
    report.check(y.guard_intact() && rounded.guard_intact() && poisoned.guard_intact(), "guards");
    report.check(before.empty() || std::memcmp(before.data(), got.data(), got.size() * sizeof(float)) == 0,
                 "the same bits from slots and from a plan");
    before = got;
    check_overlap(report, layer, forward, x.bytes(), before, overlaps);
  }
}

}  // namespace

void test_decode(Report& report, int most_cases) {
  using A = ActivationKind;
  const Case cases[] = {
      {1, 256, 136, 8, 4, A::kSwiGlu, false, false, 0, false, true},
      {2, 8, 8, 3, 2, A::kSwiGlu, false, false, 0, true},
      {33, 136, 328, 4, 1, A::kRelu},
      {64, 64, 64, 16, 8, A::kSwiGlu, false, false, 2},
      {1, 64, 32, 1, 1},
      {5, 136, 72, 4, 2, A::kSwiGlu, false, false, -1},
      {3, 72, 40, 5, 3},
      {5, 136, 200, 9, 4, A::kGeGlu, true, true},
      {7, 128, 264, 300, 6, A::kClampedSwiGlu, false, true},
      {16, 200, 72, 8, 2, A::kGelu, true, true},
      {64, 128, 96, 6, 3, A::kSilu, true},
      {16, 1024, 384, 32, 8},
      {64, 1024, 512, 16, 8},
      {64, 1032, 520, 8, 2, A::kSwiGlu, true, true},
      {64, 128, 64, 1024, 16},
      {64, 1024, 512, 8, 1, A::kSwiGlu, false, false, 1},
      {9, 264, 136, 6, 3, A::kSwiGlu, false, false, 0, true},
      {40, 72, 64, 5, 4, A::kSwiGlu, false, true, 0, true},
      {1, 2048, 768, 8, 8, A::kSwiGlu, false, false, 0, false, true},
      {1, 200, 72, 20, 16, A::kGeGlu, true, true, 0, true, true},
      {4, 136, 264, 40, 8, A::kSwiGlu, false, true, 0, true, true},
      {3, 1032, 520, 32, 9, A::kRelu, true, false, 0, false, true},
      {1, 72, 64, 40, 17, A::kSwiGlu, false, false, 0, false, true},
      // Tiles of 16 to 128 rows, several tasks a block, blocks without one (of 132).
      {1, 4400, 64, 8, 2, A::kSwiGlu, false, true, 0, false, true},
      {1, 4400, 64, 8, 4, A::kSwiGlu, false, false, 0, false, true},
      {4, 2048, 64, 32, 8, A::kSwiGlu, false, false, 0, false, true},
      {4, 4224, 64, 32, 8, A::kSwiGlu, false, true, 0, false, true},
      {2, 2176, 32, 40, 16, A::kSwiGlu, false, false, 0, false, true},
      {1, 2560, 576, 8, 8, A::kSwiGlu, false, false, 0, false, true},  // the queue fills blocks better
      {16, 72, 64, 40, 2, A::kSwiGlu, false, false, 0, true, true},    // tokens without a row
      {1, 8800, 64, 8, 4, A::kSwiGlu, false, true, 0, true, true},     // sums in tiles of 32 columns and more
      {1, 136, 72, 8, 3, A::kSwiGlu, false, false, -1, true},          // no expert with weights
      {6, 136, 72, 8, 3, A::kSwiGlu, false, false, -1, true},
      {8, 2120, 64, 1, 1},
      {48, 1152, 576, 64, 16},
  };
  const bool all = most_cases >= kAllCases;  // fewer launches under a memory checker
  int index = 0;
  for (const Case& c : cases) {
    if (index++ >= most_cases) break;
    const std::string name = "few tokens " + std::to_string(c.tokens) + "," + std::to_string(c.width) + "," +
                             std::to_string(c.expert_width) + "," + std::to_string(c.experts) + "," +
                             std::to_string(c.top_k);
    report.name = name;
    check(report, c, all ? 12 : 2);
  }
  if (!all) return;
  report.name = "few tokens";
  check_counters_return(report);
}

}  // namespace motley::cuda::test
