// Speed of the expert layer on a GPU: forward (plan included in the time, not in the FLOPs) and backward,
// with every kernel by itself, beside a dense product by cuBLAS in the same run.
// Usage: expert_layer_bench [uniform|zipf|half|same] [T,D,F,E,K ...]
#include <cublas_v2.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "benchmarks/cuda/bench_tools.cuh"
#include "motley/kernels/cuda/expert_layer.h"
#include "motley/kernels/cuda/token_sum.h"

namespace {

using namespace motley::cuda;
using namespace motley::cuda::bench;
using bf16 = __nv_bfloat16;

// The card slows down under load: the first products, and those after a third of a second of them.
void print_ceilings() {
  const int n = 8192;
  Buffer<bf16> a(size_t(n) * n, 1, 1), b(size_t(n) * n, 1, 2), c(size_t(n) * n);
  cublasHandle_t handle;
  if (cublasCreate(&handle) != CUBLAS_STATUS_SUCCESS) throw std::runtime_error("cublasCreate failed");
  const float one = 1, zero = 0;
  const auto multiply = [&] {
    if (cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a.data, CUDA_R_16BF, n, b.data,
                     CUDA_R_16BF, n, &zero, c.data, CUDA_R_16BF, n, CUBLAS_COMPUTE_32F,
                     CUBLAS_GEMM_DEFAULT) != CUBLAS_STATUS_SUCCESS)
      throw std::runtime_error("cublasGemmEx failed");
  };
  const double cold = time_ms(multiply, 15, 3).median, warm = time_ms(multiply, 15, 220).median;
  cublasDestroy(handle);
  Buffer<char> from(size_t(2) << 30), to(size_t(2) << 30);
  const Timing copy = time_ms(
      [&] { MOTLEY_CUDA_CHECK(cudaMemcpyAsync(to.data, from.data, from.count, cudaMemcpyDeviceToDevice)); });
  const double unit = 2. * n * n * n * 1e-9;
  std::printf("dense 8192^3 bf16: %.0f TFLOP/s at first, %.0f under load; copy: %.2f TB/s (read + written)\n",
              unit / cold, unit / warm, 2. * from.count / copy.median * 1e-9);
}

void measure(const LayerShape& s, const std::string& skew) {
  const auto [T, D, F, E, K] = s;
  const int R = T * K;
  const ExpertShape shape{T, K, E, E, D, F, R};
  Buffer<bf16> x(size_t(T) * D, 1, 3), dy(size_t(T) * D, 1, 4), gate_up(size_t(E) * 2 * F * D, 0.02f, 5),
      down(size_t(E) * D * F, 0.02f, 6), y(size_t(T) * D), dx(size_t(T) * D), hidden(size_t(R) * 2 * F),
      dgate_up(gate_up.count), ddown(down.count);
  Buffer<float> gate_weights(R), dgate_weights(R);
  const std::vector<float> weights(R, 1.f / K);
  MOTLEY_CUDA_CHECK(cudaMemcpy(gate_weights.data, weights.data(), R * sizeof(float), cudaMemcpyHostToDevice));
  const std::vector<int> host_slots = make_slots(T, E, K, skew);
  Buffer<int> slots(R), row_assignment(R), expert_offset(E + 1), token_rows(R), num_tiles(1);
  MOTLEY_CUDA_CHECK(cudaMemcpy(slots.data, host_slots.data(), R * sizeof(int), cudaMemcpyHostToDevice));
  Buffer<RowTile> tiles(max_row_tiles(R, E));
  Buffer<bf16> dhidden(size_t(R) * 2 * F), weighted(size_t(R) * F);
  Buffer<char> plan_workspace(routing_plan_workspace_bytes(R, E)),
      forward_scratch(expert_layer_forward_workspace_bytes(shape)),
      backward_scratch(expert_layer_backward_input_workspace_bytes(shape));
  const TileSchedule schedule{tiles.data, num_tiles.data};
  const ExpertLayer layer{Family::kSm90,
                          shape,
                          {row_assignment.data, expert_offset.data, nullptr, schedule},
                          token_rows.data,
                          Activation{},
                          {gate_up.data, 2l * F * D},
                          {down.data, long(D) * F},
                          {},
                          {}};

  Buffer<char> weight_scratch(expert_layer_backward_weight_workspace_bytes(layer));

  const auto make_plan = [&] {
    routing_plan(slots.data, R, E, {row_assignment.data, expert_offset.data, token_rows.data}, schedule,
                 plan_workspace.data, nullptr);
  };
  const auto forward = [&](bf16* kept) {
    make_plan();
    expert_layer_forward(layer, {x.data, D, gate_weights.data, kept, y.data}, forward_scratch.data, nullptr);
  };
  const auto backward = [&] {
    expert_layer_backward_input(layer,
                                {dy.data,
                                 D,
                                 gate_weights.data,
                                 hidden.data,
                                 dx.data,
                                 false,
                                 dgate_weights.data,
                                 dhidden.data,
                                 weighted.data,
                                 {ddown.data, layer.down.stride}},
                                backward_scratch.data, nullptr);
    expert_layer_backward_weight(layer,
                                 {dy.data,
                                  D,
                                  x.data,
                                  D,
                                  gate_weights.data,
                                  dhidden.data,
                                  weighted.data,
                                  {dgate_up.data, layer.gate_up.stride},
                                  {},
                                  {},
                                  {}},
                                 weight_scratch.data, nullptr);
  };
  const double unit = 2. * R * D * F * 1e-9;  // GFLOP/1e0 of one D x F product; over ms: TFLOP/s
  const Timing inference = time_ms([&] { forward(nullptr); });
  const Timing training = time_ms([&] { forward(hidden.data); });
  const Timing gradients = time_ms(backward);
  std::printf(
      "%d,%d,%d,%d,%d %s: forward %.0f TFLOP/s (%.3f ms, %.3f to %.3f), keeping H %.0f, backward %.0f "
      "TFLOP/s (%.3f ms, %.3f to %.3f)\n",
      T, D, F, E, K, skew.c_str(), 3 * unit / inference.median, inference.median, inference.low,
      inference.high, 3 * unit / training.median, 6 * unit / gradients.median, gradients.median,
      gradients.low, gradients.high);

  Buffer<bf16> activated(size_t(R) * F), rows(size_t(R) * D);
  Buffer<float> parts(size_t(R) * num_gate_parts(F));
  Buffer<int> outer_scratch(outer_scratch_size(shape, 2 * F, D));
  const double sum_bytes = 2. * (double(R) + T) * D;
  const auto up = [&](const bf16* from, bool by_token, bf16* kept) {
    expert_up(layer.family, shape, layer.plan,
              {from, D, by_token, layer.gate_up, {}, layer.activation, kept, activated.data}, nullptr);
  };
  const auto matmul = [&](const bf16* from, int depth, PlacedWeights weights, bool transposed) {
    expert_matmul(layer.family, shape, layer.plan,
                  {from, depth, false, weights, transposed, {}, depth, D, rows.data}, nullptr);
  };
  const auto outer = [&](const bf16* by_row, int width, const bf16* other, bool by_token, bool first,
                         const Gradient& out) {
    expert_outer(layer.family, shape, layer.plan,
                 {by_row, width, other, D, by_token, D, first, out, outer_scratch.data}, nullptr);
  };
  const auto backward_hidden = [&](const bf16* from, bool by_token) {
    expert_dhidden(layer.family, shape, layer.plan,
                   {from, D, by_token, layer.down, layer.activation, hidden.data, gate_weights.data,
                    dhidden.data, weighted.data, parts.data},
                   nullptr);
  };
  struct Part {
    const char* name;
    double units, bytes;
    std::function<void()> work;
  };
  make_plan();
  copy_to_rows(shape, token_rows.data, x.data, D, rows.data, nullptr);  // what a copy is measured on
  const Part all[] = {
      {"plan", 0, 0, make_plan},
      {"up", 2, 0, [&] { up(x.data, true, nullptr); }},
      {"of a copy", 2, 0, [&] { up(rows.data, false, nullptr); }},
      {"up+H", 2, 0, [&] { up(x.data, true, hidden.data); }},
      {"down", 1, 0, [&] { matmul(activated.data, F, layer.down, true); }},
      {"sum", 0, sum_bytes,
       [&] {
         token_sum(shape.type, rows.data, gate_weights.data, token_rows.data, T, K, D, y.data, false,
                   nullptr);
       }},
      {"dx", 2, 0, [&] { matmul(dhidden.data, 2 * F, layer.gate_up, false); }},
      {"copy", 0, sum_bytes, [&] { copy_to_rows(shape, token_rows.data, dy.data, D, rows.data, nullptr); }},
      {"dhidden", 1, 0, [&] { backward_hidden(dy.data, true); }},
      {"of a copy", 1, 0, [&] { backward_hidden(rows.data, false); }},
      {"ddown", 1, 0,
       [&] {
         outer(weighted.data, F, dy.data, true, true, {ddown.data, layer.down.stride});
       }},
      {"of a copy", 1, 0,
       [&] {
         outer(weighted.data, F, rows.data, false, true, {ddown.data, layer.down.stride});
       }},
      {"dgate_up", 2, 0,
       [&] {
         outer(dhidden.data, 2 * F, x.data, true, false, {dgate_up.data, layer.gate_up.stride});
       }},
      {"of a copy", 2, 0,
       [&] {
         outer(dhidden.data, 2 * F, rows.data, false, false, {dgate_up.data, layer.gate_up.stride});
       }},
  };
  int device = 0, shared_bytes = 0;
  MOTLEY_CUDA_CHECK(cudaGetDevice(&device));
  MOTLEY_CUDA_CHECK(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const std::pair<const char*, Product> products[] = {{"up", Product::kUp},
                                                      {"down", Product::kDown},
                                                      {"dhidden and ddown", Product::kDhiddenAndDdown},
                                                      {"dx", Product::kDx},
                                                      {"dgate_up", Product::kDgateUp}};
  for (const auto& [name, product] : products)
    std::printf(
        "    %s: %s\n", name,
        describe(product_tiles(layer.family, shape, layer.activation, product, shared_bytes)).c_str());
  std::printf("   ");
  for (const Part& part : all) {
    const double ms = time_ms(part.work, 7, 1).median;
    std::printf(" %s %.3f ms", part.name, ms);
    if (part.units) std::printf(" (%.0f)", part.units * unit / ms);
    if (part.bytes) std::printf(" (%.2f TB/s)", part.bytes / ms * 1e-9);
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto [skew, shapes] = read_arguments(count, arguments);
  try {
    print_ceilings();
    for (const LayerShape& shape : shapes) measure(shape, skew);
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    return 1;
  }
}
