// Memory-bound: every row is read once, x where a choice needs it, y written once. With many tokens a warp
// takes one, so that many are under way at once and no barrier is needed; with few, a block.
#include <algorithm>

#include "motley/kernels/cuda/constant_expert.cuh"
#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda {
namespace {

constexpr int kMaxWarps = 8;
constexpr int kManyTokens = 4096;
constexpr int kBatch = 4;  // rows whose loads are in flight together
constexpr unsigned kAllLanes = 0xffffffffu;

// A row of an expert, or the vector of a constant expert, and its weight.
struct Source {
  int index;
  float weight;
};

// What a token adds up: `rows` from the front of its sources [K], `vectors` from their end, and x.
struct Sources {
  Source* list;
  int rows, vectors;
  bool uses_x;
  float of_x;
};

// A token's threads: one warp, or all warps of the block.
struct Team {
  int thread, threads;
  float* sums;  // of the warps

  __device__ void wait() const {
    if (threads == 32)
      __syncwarp();
    else
      __syncthreads();
  }
  __device__ float sum(float value) const {
    value = warp_sum(value);
    if (threads == 32) return value;
    __syncthreads();  // `sums` may still be read from the last call
    if (thread % 32 == 0) sums[thread / 32] = value;
    __syncthreads();
    value = 0.f;
    for (int warp = 0; warp < threads / 32; ++warp) value += sums[warp];
    return value;
  }
};

template <template <class> class V, class T, class P>
__device__ Sources find_sources(const ZeroExpertLayer& layer, const int* token_rows, long token, const T* x,
                                const Team& team, Source* list) {
  Sources found{list, 0, 0, false, 0.f};
  const int lane = team.thread % 32;
  for (int first = 0; first < layer.top_k; first += 32) {
    const long choice = token * layer.top_k + first + lane;
    const bool known = first + lane < layer.top_k;
    const int row = known && token_rows ? token_rows[choice] : -1;
    const float weight = known ? layer.weights[choice] : 0.f;
    const int gives = known && row < 0 ? what_slot_gives(layer, layer.slots[choice]) : kGivesNothing;
    const unsigned with_row = __ballot_sync(kAllLanes, row >= 0);
    if (row >= 0 && team.thread < 32)
      list[found.rows + __popc(with_row & ((1u << lane) - 1))] = {row, weight};
    found.rows += __popc(with_row);
    for (unsigned left = __ballot_sync(kAllLanes, gives != kGivesNothing); left; left &= left - 1) {
      const int from = __ffs(left) - 1, constant = __shfl_sync(kAllLanes, gives, from);
      float of_x = __shfl_sync(kAllLanes, weight, from);
      if (constant != kGivesX) {
        const P* gate = static_cast<const P*>(layer.constant_gate) + 2l * constant * layer.width;
        const float2 mix =
            constant_mix(team.sum(logit_difference<V>(x, gate, layer.width, team.thread, team.threads)));
        if (team.thread == 0) list[layer.top_k - 1 - found.vectors] = {constant, of_x * mix.y};
        ++found.vectors;
        of_x *= mix.x;
      }
      found.uses_x = true;
      found.of_x += of_x;
    }
  }
  team.wait();
  return found;
}

template <template <class> class V, class T, class P, class Out>
__global__ void __launch_bounds__(32 * kMaxWarps)
    add_up(const __grid_constant__ ZeroExpertLayer layer, const T* rows, const int* token_rows, Out* y) {
  constexpr int kSize = V<T>::kSize;
  extern __shared__ Source lists[];
  __shared__ float sums[kMaxWarps];
  const Team team{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), sums};
  const long token = (long)blockIdx.x * blockDim.y + threadIdx.y, width = layer.width;
  if (token >= layer.num_tokens) return;
  const T* x = static_cast<const T*>(layer.x) + token * width;
  const Sources from =
      find_sources<V, T, P>(layer, token_rows, token, x, team, lists + threadIdx.y * layer.top_k);
  for (int column = team.thread * kSize; column < width; column += team.threads * kSize) {
    float sum[kSize] = {};
    for (int first = 0; first < from.rows; first += kBatch) {
      V<T> value[kBatch];
      float weight[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const bool known = first + i < from.rows;
        const Source source = known ? from.list[first + i] : Source{0, 0.f};
        weight[i] = source.weight;
        value[i] = known ? load<V>(rows + source.index * width + column) : V<T>{};
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i)
        for (int j = 0; j < kSize; ++j) sum[j] += weight[i] * value[i][j];
    }
    if (from.uses_x) {
      const V<T> value = load<V>(x + column);
      for (int j = 0; j < kSize; ++j) sum[j] += from.of_x * value[j];
    }
    for (int i = 0; i < from.vectors; ++i) {
      const Source source = from.list[layer.top_k - 1 - i];
      const V<P> value = load<V>(static_cast<const P*>(layer.constant) + source.index * width + column);
      for (int j = 0; j < kSize; ++j) sum[j] += source.weight * value[j];
    }
    store(y + token * width + column, sum);
  }
}

template <template <class> class V, class T, class P>
void launch(const ZeroExpertLayer& layer, const ZeroExpertSum& sum, cudaStream_t stream) {
  const int per_warp = 32 * V<T>::kSize;
  const bool many = layer.num_tokens >= kManyTokens && layer.top_k <= 128;
  const int warps = many ? 1 : std::min(kMaxWarps, (layer.width + per_warp - 1) / per_warp);
  const dim3 threads(32 * warps, many ? kMaxWarps : 1);
  const int blocks = (layer.num_tokens + threads.y - 1) / threads.y;
  const size_t shared = sizeof(Source) * threads.y * layer.top_k;
  const T* rows = static_cast<const T*>(sum.rows);
  if (sum.y_fp32)
    add_up<V, T, P>
        <<<blocks, threads, shared, stream>>>(layer, rows, sum.token_rows, static_cast<float*>(sum.y));
  else
    add_up<V, T, P><<<blocks, threads, shared, stream>>>(layer, rows, sum.token_rows, static_cast<T*>(sum.y));
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void zero_experts(const ZeroExpertLayer& layer, const ZeroExpertSum& sum, cudaStream_t stream) {
  if (layer.num_tokens == 0 || layer.width == 0) return;
  with_element(layer.element, [&]<class T>() {
    const bool vectors = layer.width % Vector<T>::kSize == 0;
    if (layer.parameters == layer.element)
      vectors ? launch<Vector, T, T>(layer, sum, stream) : launch<Scalar, T, T>(layer, sum, stream);
    else
      vectors ? launch<Vector, T, float>(layer, sum, stream) : launch<Scalar, T, float>(layer, sum, stream);
  });
}

}  // namespace motley::cuda
