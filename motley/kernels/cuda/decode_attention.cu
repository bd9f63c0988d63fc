#include "motley/kernels/cuda/decode_attention.h"

#include <stdexcept>
#include <string>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kPartKeys = 512;  // keys of a block; longer sequences are split and added up
constexpr unsigned kAllLanes = 0xffffffffu;

int num_parts(const BlockCache& cache) {
  return (cache.table_width * cache.block_size + kPartKeys - 1) / kPartKeys;
}

__global__ void __launch_bounds__(kThreads)
    append_rows(BlockCache cache, const char* keys, long key_stride, const char* values, long value_stride,
                const long* positions, int row_bytes) {
  const int sequence = blockIdx.x;
  const long position = positions[sequence];
  if (position < 0 || position >= (long)cache.table_width * cache.block_size) return;
  const long block = cache.block_table[(long)sequence * cache.table_width + position / cache.block_size];
  const long at = (block * cache.block_size + position % cache.block_size) * row_bytes;
  for (int i = threadIdx.x * 2; i < row_bytes; i += kThreads * 2) {
    *reinterpret_cast<short*>(static_cast<char*>(cache.keys) + at + i) =
        *reinterpret_cast<const short*>(keys + sequence * key_stride + i);
    *reinterpret_cast<short*>(static_cast<char*>(cache.values) + at + i) =
        *reinterpret_cast<const short*>(values + sequence * value_stride + i);
  }
}

// A softmax that is being added up: largest logit, sum of exponentials, and weighted sum of values.
template <int E>
struct Partial {
  float largest = -INFINITY, sum = 0.f, value[E] = {};

  __device__ void add(float logit, const float (&v)[E]) {
    const float next = fmaxf(largest, logit);
    const float keep = exp2f(largest - next), share = exp2f(logit - next);
    largest = next;
    sum = sum * keep + share;
    for (int e = 0; e < E; ++e) value[e] = value[e] * keep + share * v[e];
  }
};

// One block per key-value head, G of its queries and part of the keys; a warp takes every kWarps-th key, a
// lane E elements of a head.
template <class T, int G, int E>
__global__ void __launch_bounds__(kThreads) attend(BlockCache cache, const T* queries, const long* positions,
                                                   int group, int num_heads, T* out, float* parts) {
  __shared__ float largest[kWarps][G], sums[kWarps][G], values[kWarps][G][32 * E];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int groups = (group + G - 1) / G;
  const int kv_head = blockIdx.x / groups, first = blockIdx.x % groups * G;
  const int sequence = blockIdx.y, part = blockIdx.z, head_dim = cache.head_dim;
  const long length = positions[sequence] + 1;
  const int* table = cache.block_table + (long)sequence * cache.table_width;
  const float scale = rsqrtf((float)head_dim) * 1.44269504f;  // exponentials are taken to base 2
  float query[G][E];
  Partial<E> partial[G];
  for (int g = 0; g < G; ++g)
    for (int e = 0; e < E; ++e) {
      const int d = e * 32 + lane;
      const long head = (long)sequence * num_heads + kv_head * group + first + g;
      query[g][e] = first + g < group && d < head_dim ? to_float(queries[head * head_dim + d]) * scale : 0.f;
    }
  const long begin = (long)part * kPartKeys, end = min(length, begin + kPartKeys);
  for (long key = begin + warp; key < end; key += kWarps) {
    const long row = (long)table[key / cache.block_size] * cache.block_size + key % cache.block_size;
    const long at = (row * cache.num_kv_heads + kv_head) * head_dim;
    float k[E], v[E];
    for (int e = 0; e < E; ++e) {
      const int d = e * 32 + lane;
      k[e] = d < head_dim ? to_float(static_cast<const T*>(cache.keys)[at + d]) : 0.f;
      v[e] = d < head_dim ? to_float(static_cast<const T*>(cache.values)[at + d]) : 0.f;
    }
    for (int g = 0; g < G; ++g) {
      float logit = 0.f;
      for (int e = 0; e < E; ++e) logit += query[g][e] * k[e];
      for (int step = 16; step > 0; step /= 2) logit += __shfl_xor_sync(kAllLanes, logit, step);
      partial[g].add(logit, v);
    }
  }
  for (int g = 0; g < G; ++g) {
    largest[warp][g] = partial[g].largest;
    sums[warp][g] = partial[g].sum;
    for (int e = 0; e < E; ++e) values[warp][g][e * 32 + lane] = partial[g].value[e];
  }
  __syncthreads();
  for (int g = warp; g < G && first + g < group; g += kWarps) {
    float most = -INFINITY, sum = 0.f;
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, largest[w][g]);
    const long head = (long)sequence * num_heads + kv_head * group + first + g;
    float total[E] = {};
    for (int w = 0; w < kWarps; ++w) {
      const float share = most == -INFINITY ? 0.f : exp2f(largest[w][g] - most);
      sum += share * sums[w][g];
      for (int e = 0; e < E; ++e) total[e] += share * values[w][g][e * 32 + lane];
    }
    float* to = parts + (head * gridDim.z + part) * (head_dim + 2);
    for (int e = 0; e < E; ++e) {
      const int d = e * 32 + lane;
      if (d >= head_dim) continue;
      if (gridDim.z == 1)
        out[head * head_dim + d] = from_float<T>(total[e] / sum);
      else
        to[d] = total[e];
    }
    if (gridDim.z > 1 && lane == 0) {
      to[head_dim] = most;
      to[head_dim + 1] = sum;
    }
  }
}

// Adds the parts of a head in order.
template <class T>
__global__ void add_parts(const float* parts, int num_parts, int head_dim, T* out) {
  const float* mine = parts + (long)blockIdx.x * num_parts * (head_dim + 2);
  float most = -INFINITY;
  for (int p = 0; p < num_parts; ++p) most = fmaxf(most, mine[p * (head_dim + 2) + head_dim]);
  for (int d = threadIdx.x; d < head_dim; d += blockDim.x) {
    float sum = 0.f, value = 0.f;
    for (int p = 0; p < num_parts; ++p) {
      const float* part = mine + p * (head_dim + 2);
      const float share = exp2f(part[head_dim] - most);
      if (part[head_dim + 1] == 0.f) continue;  // no keys here: its largest is minus infinity
      sum += share * part[head_dim + 1];
      value += share * part[d];
    }
    out[(long)blockIdx.x * head_dim + d] = from_float<T>(value / sum);
  }
}

size_t element_bytes(Element element) { return element == Element::kFloat32 ? 4 : 2; }

}  // namespace

void append_to_cache(const BlockCache& cache, const void* keys, long key_stride, const void* values,
                     long value_stride, const long* positions, int num_sequences, cudaStream_t stream) {
  if (num_sequences == 0) return;
  const long bytes = static_cast<long>(element_bytes(cache.element));
  append_rows<<<num_sequences, kThreads, 0, stream>>>(
      cache, static_cast<const char*>(keys), key_stride * bytes, static_cast<const char*>(values),
      value_stride * bytes, positions, static_cast<int>(cache.num_kv_heads * cache.head_dim * bytes));
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

size_t decode_attention_workspace_bytes(const BlockCache& cache, int num_sequences, int num_heads) {
  const int parts = num_parts(cache);
  return parts == 1 ? 0 : sizeof(float) * num_sequences * num_heads * parts * (cache.head_dim + 2);
}

void decode_attention(const BlockCache& cache, const void* queries, const long* positions, int num_sequences,
                      int num_heads, void* out, void* workspace, cudaStream_t stream) {
  if (cache.head_dim > kMaxDecodeHeadDim)
    throw std::invalid_argument("[decode_attention] expected a head_dim of at most " +
                                std::to_string(kMaxDecodeHeadDim) + ", got " +
                                std::to_string(cache.head_dim));
  if (num_sequences == 0) return;
  const int group = num_heads / cache.num_kv_heads, parts = num_parts(cache);
  auto* scratch = static_cast<float*>(workspace);
  with_element(cache.element, [&]<class T>() {
    const auto launch = [&]<int G, int E>() {
      const dim3 grid(cache.num_kv_heads * ((group + G - 1) / G), num_sequences, parts);
      attend<T, G, E><<<grid, kThreads, 0, stream>>>(cache, static_cast<const T*>(queries), positions, group,
                                                     num_heads, static_cast<T*>(out), scratch);
    };
    const auto with_width = [&]<int G>() {
      if (cache.head_dim <= 64)
        launch.template operator()<G, 2>();
      else if (cache.head_dim <= 128)
        launch.template operator()<G, 4>();
      else
        launch.template operator()<G, 8>();
    };
    if (group == 1)
      with_width.template operator()<1>();
    else
      with_width.template operator()<4>();
    if (parts > 1)
      add_parts<T><<<num_sequences * num_heads, 128, 0, stream>>>(scratch, parts, cache.head_dim,
                                                                  static_cast<T*>(out));
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda
