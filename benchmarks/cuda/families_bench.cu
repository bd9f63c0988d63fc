// The expert layer by each family of kernels beside one made of CUTLASS's grouped collectives, in one run:
// speed of forward (plan included in the time, not in the FLOPs) and backward, and how far the results are
// apart. Usage: families_bench [uniform|zipf] [T,D,F,E,K ...]
#include <cstdio>
#include <string>
#include <vector>

#include "benchmarks/cuda/bench_tools.cuh"
#include "benchmarks/cuda/grouped_baseline.h"
#include "motley/kernels/cuda/expert_layer.h"

namespace {

using namespace motley::cuda;
using namespace motley::cuda::bench;

template <class T>
__global__ void add_squares(const T* one, const T* two, size_t count, double* sums) {
  double difference = 0, size = 0;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count;
       i += gridDim.x * size_t(blockDim.x)) {
    const double a = float(one[i]), b = float(two[i]);
    difference += (a - b) * (a - b);
    size += b * b;
  }
  atomicAdd(&sums[0], difference);
  atomicAdd(&sums[1], size);
}

// Root mean square of the difference over that of the values.
template <class T>
double distance(const Buffer<T>& one, const Buffer<T>& two) {
  Buffer<double> sums(2);
  MOTLEY_CUDA_CHECK(cudaMemset(sums.data, 0, 2 * sizeof(double)));
  add_squares<<<1024, 256>>>(one.data, two.data, one.count, sums.data);
  double host[2];
  MOTLEY_CUDA_CHECK(cudaMemcpy(host, sums.data, sizeof(host), cudaMemcpyDeviceToHost));
  return std::sqrt(host[0] / host[1]);
}

struct Results {
  Buffer<bf16> hidden, y, dx, dgate_up, ddown;
  Buffer<float> dgate_weights;
  explicit Results(const LayerShape& s)
      : hidden(size_t(s.T) * s.K * 2 * s.F),
        y(size_t(s.T) * s.D),
        dx(y.count),
        dgate_up(size_t(s.E) * 2 * s.F * s.D),
        ddown(size_t(s.E) * s.F * s.D),
        dgate_weights(size_t(s.T) * s.K) {}
};

// What is measured: forward keeps hidden.
struct Way {
  std::string name;
  std::function<void()> forward, backward;
};

class Comparison {
 public:
  Comparison(const LayerShape& shape, const std::string& skew)
      : s(shape),
        R(s.T * s.K),
        x(size_t(s.T) * s.D, 1, 3),
        dy(x.count, 1, 4),
        gate_up(size_t(s.E) * 2 * s.F * s.D, 0.02f, 5),
        down(size_t(s.E) * s.F * s.D, 0.02f, 6),
        gate_weights(R),
        slots(R),
        row_assignment(R),
        expert_offset(s.E + 1),
        token_rows(R),
        plan_workspace(routing_plan_workspace_bytes(R, s.E)),
        schedule_memory(tile_schedule_bytes(R, s.E)),
        schedule(take_tile_schedule(R, s.E, schedule_memory.data)),
        ours(s),
        theirs(s),
        dhidden(ours.hidden.count),
        weighted(size_t(R) * s.F),
        layer{Family::kSm80,
              {s.T, s.K, s.E, s.E, s.D, s.F, R},
              {row_assignment.data, expert_offset.data, nullptr, schedule},
              token_rows.data,
              Activation{},
              {gate_up.data, 2l * s.F * s.D},
              {down.data, long(s.D) * s.F},
              {},
              {}},
        scratch(std::max(expert_layer_forward_workspace_bytes(layer.shape),
                         expert_layer_backward_input_workspace_bytes(layer.shape))),
        weight_scratch(expert_layer_backward_weight_workspace_bytes(on_hopper(layer))),
        grouped({s.T, s.D, s.F, s.E, s.K, x.data, dy.data, gate_up.data, down.data, gate_weights.data,
                 row_assignment.data, expert_offset.data, token_rows.data},
                {theirs.hidden.data, theirs.y.data, theirs.dx.data, theirs.dgate_weights.data,
                 theirs.dgate_up.data, theirs.ddown.data}) {
    std::mt19937 random(7);
    std::vector<float> weights(R);
    for (float& weight : weights) weight = (0.5f + random() % 1000 * 1e-3f) / s.K;
    const std::vector<int> host_slots = make_slots(s.T, s.E, s.K, skew);
    MOTLEY_CUDA_CHECK(cudaMemcpy(gate_weights.data, weights.data(), R * sizeof(float), cudaMemcpyDefault));
    MOTLEY_CUDA_CHECK(cudaMemcpy(slots.data, host_slots.data(), R * sizeof(int), cudaMemcpyDefault));
  }

  void run() {
    std::printf("%d,%d,%d,%d,%d\n", s.T, s.D, s.F, s.E, s.K);
    measure({"CUTLASS grouped",
             [&] {
               plan();
               baseline::run(grouped.forward(), nullptr);
             },
             [&] { baseline::run(grouped.backward(), nullptr); }});
    print_steps("forward", grouped.forward());
    print_steps("backward", grouped.backward());
    for (const Family family : {Family::kSm80, Family::kSm90}) {
      layer.family = family;
      measure({family_name(family),
               [&] {
                 plan();
                 forward();
               },
               [&] { backward(); }});
      std::printf("    apart from it: y %.1e dx %.1e dgate_weights %.1e dgate_up %.1e ddown %.1e\n",
                  distance(ours.y, theirs.y), distance(ours.dx, theirs.dx),
                  distance(ours.dgate_weights, theirs.dgate_weights),
                  distance(ours.dgate_up, theirs.dgate_up), distance(ours.ddown, theirs.ddown));
    }
  }

 private:
  void plan() {
    routing_plan(slots.data, R, s.E, {row_assignment.data, expert_offset.data, token_rows.data}, schedule,
                 plan_workspace.data, nullptr);
  }
  void forward() {
    expert_layer_forward(layer, {x.data, s.D, gate_weights.data, ours.hidden.data, ours.y.data}, scratch.data,
                         nullptr);
  }
  void backward() {
    expert_layer_backward_input(layer,
                                {dy.data,
                                 s.D,
                                 gate_weights.data,
                                 ours.hidden.data,
                                 ours.dx.data,
                                 false,
                                 ours.dgate_weights.data,
                                 dhidden.data,
                                 weighted.data,
                                 {ours.ddown.data, layer.down.stride}},
                                scratch.data, nullptr);
    expert_layer_backward_weight(layer,
                                 {dy.data,
                                  s.D,
                                  x.data,
                                  s.D,
                                  gate_weights.data,
                                  dhidden.data,
                                  weighted.data,
                                  {ours.dgate_up.data, layer.gate_up.stride},
                                  {},
                                  {},
                                  {}},
                                 weight_scratch.data, nullptr);
  }
  void print_steps(const char* name, const std::vector<baseline::Step>& steps) const {
    std::printf("    %s:", name);
    for (const baseline::Step& step : steps) {
      const double ms = time_ms([&] { step.run(nullptr); }, 5, 1).median;
      std::printf(" %s %.3f ms", step.name, ms);
      if (step.units) std::printf(" (%.0f)", step.units * unit() / ms);
    }
    std::printf("\n");
  }
  static ExpertLayer on_hopper(ExpertLayer layer) {
    layer.family = Family::kSm90;  // which needs the most scratch
    return layer;
  }
  double unit() const { return 2. * R * s.D * s.F * 1e-9; }  // GFLOP of one product of all rows with D x F
  void measure(const Way& way) const {
    const Timing forward = time_ms(way.forward, 9, 2), backward = time_ms(way.backward, 9, 2);
    std::printf(
        "  %-16s forward %4.0f TFLOP/s (%.3f ms, %.3f to %.3f), backward %4.0f (%.3f ms, %.3f to %.3f)\n",
        way.name.c_str(), 3 * unit() / forward.median, forward.median, forward.low, forward.high,
        6 * unit() / backward.median, backward.median, backward.low, backward.high);
  }

  const LayerShape s;
  const int R;
  Buffer<bf16> x, dy, gate_up, down;
  Buffer<float> gate_weights;
  Buffer<int> slots, row_assignment, expert_offset, token_rows;
  Buffer<char> plan_workspace, schedule_memory;
  const TileSchedule schedule;
  Results ours, theirs;
  Buffer<bf16> dhidden, weighted;
  ExpertLayer layer;
  Buffer<char> scratch, weight_scratch;
  baseline::Layer grouped;
};

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto [skew, shapes] = read_arguments(count, arguments);
  try {
    for (const LayerShape& shape : shapes) Comparison(shape, skew).run();
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    return 1;
  }
}
