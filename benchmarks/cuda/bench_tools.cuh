// What the benchmarks of the CUDA kernels share: random data, routing, medians.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda::bench {

using bf16 = __nv_bfloat16;

static __global__ void fill_normal(bf16* data, size_t count, float scale, unsigned seed) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count;
       i += gridDim.x * size_t(blockDim.x)) {
    unsigned long long z = (i + 1) * 0x9e3779b97f4a7c15ull + seed * 0xd1342543de82ef95ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    const float u = (unsigned(z) + 1.f) * 2.3283064e-10f, v = unsigned(z >> 32) * 2.3283064e-10f;
    data[i] = __float2bfloat16(scale * sqrtf(-2.f * __logf(u)) * cospif(2.f * v));
  }
}

template <class T>
struct Buffer {
  T* data = nullptr;
  size_t count;
  explicit Buffer(size_t n) : count(n) { MOTLEY_CUDA_CHECK(cudaMalloc(&data, n * sizeof(T) + 16)); }
  Buffer(size_t n, float scale, unsigned seed) : Buffer(n) {
    fill_normal<<<1024, 256>>>(reinterpret_cast<bf16*>(data), n, scale, seed);
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cudaFree(data); }
};

struct Timing {
  double median, low, high;
};

inline Timing time_ms(const std::function<void()>& work, int repeats = 15, int warm_up = 3,
                      cudaStream_t stream = nullptr) {
  for (int i = 0; i < warm_up; ++i) work();
  cudaEvent_t begin, end;
  MOTLEY_CUDA_CHECK(cudaEventCreate(&begin));
  MOTLEY_CUDA_CHECK(cudaEventCreate(&end));
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    MOTLEY_CUDA_CHECK(cudaEventRecord(begin, stream));
    work();
    MOTLEY_CUDA_CHECK(cudaEventRecord(end, stream));
    MOTLEY_CUDA_CHECK(cudaEventSynchronize(end));
    float ms;
    MOTLEY_CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
    times.push_back(ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

inline std::vector<int> make_slots(int tokens, int experts, int top_k, const std::string& skew,
                                   unsigned seed = 11) {
  std::mt19937 random(seed);
  std::vector<float> bias(experts);
  for (int e = 0; e < experts; ++e) {
    if (skew == "zipf") bias[e] = -1.2f * std::log(e + 1.f);
    if (skew == "half" && e >= experts / 2) bias[e] = -1e9f;
    if (skew == "same" && e >= top_k) bias[e] = -1e9f;
  }
  std::shuffle(bias.begin(), bias.end(), random);
  std::uniform_real_distribution<float> uniform(1e-7f, 1.f);
  std::vector<int> slots;
  std::vector<std::pair<float, int>> score(experts);
  for (int t = 0; t < tokens; ++t) {  // Gumbel top-k: distinct experts
    for (int e = 0; e < experts; ++e) score[e] = {bias[e] - std::log(-std::log(uniform(random))), e};
    std::partial_sort(score.begin(), score.begin() + top_k, score.end(), std::greater<>());
    for (int k = 0; k < top_k; ++k) slots.push_back(score[k].second);
  }
  return slots;
}

struct LayerShape {
  int T, D, F, E, K;
};

struct LayerArguments {
  std::string skew;  // as make_slots takes it
  std::vector<LayerShape> shapes;
};

// [skew] [T,D,F,E,K ...]; uniform routing and the seven shapes of docs/kernel_log.md without them.
inline LayerArguments read_arguments(int count, char** arguments) {
  LayerArguments result{"uniform", {}};
  for (int i = 1; i < count; ++i) {
    LayerShape s;
    if (std::sscanf(arguments[i], "%d,%d,%d,%d,%d", &s.T, &s.D, &s.F, &s.E, &s.K) == 5)
      result.shapes.push_back(s);
    else
      result.skew = arguments[i];
  }
  if (result.shapes.empty())
    result.shapes = {{32768, 4096, 1024, 128, 8}, {32768, 4096, 512, 128, 8}, {24576, 1536, 256, 128, 8},
                     {8192, 4096, 14336, 8, 2},   {8192, 2048, 768, 128, 8},  {32768, 2048, 768, 128, 8},
                     {32768, 2048, 1024, 64, 8}};
  return result;
}

}  // namespace motley::cuda::bench
