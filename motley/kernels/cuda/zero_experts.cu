#include "motley/kernels/cuda/zero_experts.h"

#include <algorithm>

#include "motley/kernels/cuda/constant_expert.cuh"
#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxBlocks = 4096;
constexpr int kColumns = 128;  // of a block of parameter sums
constexpr int kMaxParts = 64;  // of the tokens, each added up by itself
constexpr unsigned kAllLanes = 0xffffffffu;

// Sums of N values over the block, in a fixed order, in every thread.
template <int N>
__device__ void block_sums(float (&value)[N], float (&shared)[kWarps][N]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
    for (int step = 16; step > 0; step /= 2) value[i] += __shfl_down_sync(kAllLanes, value[i], step);
  __syncthreads();  // `shared` may still be read from the last call
  if (threadIdx.x % 32 == 0)
    for (int i = 0; i < N; ++i) shared[threadIdx.x / 32][i] = value[i];
  __syncthreads();
  for (int i = 0; i < N; ++i) {
    value[i] = 0.f;
    for (int warp = 0; warp < kWarps; ++warp) value[i] += shared[warp][i];
  }
}

__device__ const float* fp32(const void* parameters) { return static_cast<const float*>(parameters); }

// What a choice contributes to its parameters: v_scale dy to v, dlogit x to W_c.
struct Share {
  int constant;  // -1: nothing
  float v_scale, dlogit;
};

template <class T, class G>
__global__ void __launch_bounds__(kThreads)
    backward(const __grid_constant__ ZeroExpertLayer layer, ZeroExpertGradients out, Share* shares) {
  extern __shared__ Share added[];  // of the token; v_scale is the scale of dy, dlogit that of W_c
  __shared__ float sums[kWarps][3];
  const int width = layer.width;
  for (long token = blockIdx.x; token < layer.num_tokens; token += gridDim.x) {
    const T* x = static_cast<const T*>(layer.x) + token * width;
    const G* dy = static_cast<const G*>(out.dy) + token * width;
    int num_added = 0;
    __syncthreads();
    for (int k = 0; k < layer.top_k; ++k) {
      const long choice = token * layer.top_k + k;
      const int constant = what_slot_gives(layer, layer.slots[choice]);
      if (constant == kGivesNothing) {
        if (threadIdx.x == 0) {
          out.dweights[choice] = 0.f;
          shares[choice].constant = -1;
        }
        continue;
      }
      const float* v = fp32(layer.constant) + (long)constant * width;  // unless it gives x
      const float* gate = fp32(layer.constant_gate) + 2l * constant * width;
      float sum[3] = {};  // <dy, x>, <dy, v>, logit difference
      for (int d = threadIdx.x; d < width; d += kThreads) {
        const float x_d = to_float(x[d]), dy_d = to_float(dy[d]);
        sum[0] += dy_d * x_d;
        if (constant != kGivesX) {
          sum[1] += dy_d * v[d];
          sum[2] += (gate[width + d] - gate[d]) * x_d;
        }
      }
      block_sums(sum, sums);
      if (threadIdx.x == 0) {
        const float2 mix = constant == kGivesX ? float2{1.f, 0.f} : constant_mix(sum[2]);
        const float weight = layer.weights[choice];
        out.dweights[choice] = mix.x * sum[0] + mix.y * sum[1];
        // d(a1)/d(logit 0) = a1 a2 = -d(a2)/d(logit 0).
        const float dlogit = weight * mix.x * mix.y * (sum[0] - sum[1]);
        added[num_added] = {constant, weight * mix.x, dlogit};
        shares[choice] = {constant, weight * mix.y, dlogit};
      }
      ++num_added;
    }
    __syncthreads();
    T* dx = static_cast<T*>(out.dx) + token * width;
    for (int d = threadIdx.x; d < width; d += kThreads) {
      float sum = 0.f;
      for (int i = 0; i < num_added; ++i) {
        sum += added[i].v_scale * to_float(dy[d]);
        if (added[i].constant >= 0) {
          const float* gate = fp32(layer.constant_gate) + 2l * added[i].constant * width;
          sum += added[i].dlogit * (gate[d] - gate[width + d]);
        }
      }
      dx[d] = from_float<T>(sum);
    }
  }
}

int num_parts(int num_tokens) { return std::clamp((num_tokens + 63) / 64, 1, kMaxParts); }

// parts [num_parts][Z_constant][2][D]: sums of v_scale dy and of dlogit x over a part of the tokens.
template <class T, class G>
__global__ void __launch_bounds__(kColumns)
    parameter_parts(const __grid_constant__ ZeroExpertLayer layer, const G* dy, const Share* shares,
                    int tokens_per_part, float* parts) {
  const int d = blockIdx.x * kColumns + threadIdx.x, constant = blockIdx.y, part = blockIdx.z;
  const int begin = part * tokens_per_part, end = min(layer.num_tokens, begin + tokens_per_part);
  float v = 0.f, gate = 0.f;
  for (long choice = (long)begin * layer.top_k; choice < (long)end * layer.top_k; ++choice) {
    const Share share = shares[choice];
    if (share.constant != constant || d >= layer.width) continue;
    const long at = choice / layer.top_k * layer.width + d;
    v += share.v_scale * to_float(dy[at]);
    gate += share.dlogit * to_float(static_cast<const T*>(layer.x)[at]);
  }
  if (d >= layer.width) return;
  float* to = parts + ((long)part * layer.num_constant + constant) * 2 * layer.width + d;
  to[0] = v;
  to[layer.width] = gate;
}

__global__ void __launch_bounds__(kColumns)
    add_parts(const float* parts, int num_parts, int num_constant, int width, ZeroExpertGradients out) {
  const int d = blockIdx.x * kColumns + threadIdx.x, constant = blockIdx.y;
  if (d >= width) return;
  float v = 0.f, gate = 0.f;
  for (int part = 0; part < num_parts; ++part) {
    const float* from = parts + ((long)part * num_constant + constant) * 2 * width + d;
    v += from[0];
    gate += from[width];
  }
  out.dconstant[(long)constant * width + d] = v;
  // The two rows of a gate get opposite gradients (softmax of two).
  out.dconstant_gate[2l * constant * width + d] = gate;
  out.dconstant_gate[(2l * constant + 1) * width + d] = -gate;
}

size_t share_bytes(const ZeroExpertLayer& layer) {
  return (sizeof(Share) * layer.num_tokens * layer.top_k + 255) / 256 * 256;
}

}  // namespace

size_t zero_experts_backward_workspace_bytes(const ZeroExpertLayer& layer) {
  return share_bytes(layer) +
         sizeof(float) * 2 * num_parts(layer.num_tokens) * layer.num_constant * layer.width;
}

void zero_experts_backward(const ZeroExpertLayer& layer, const ZeroExpertGradients& gradients,
                           void* workspace, cudaStream_t stream) {
  if (layer.width == 0) return;
  auto* shares = static_cast<Share*>(workspace);
  auto* parts = reinterpret_cast<float*>(static_cast<char*>(workspace) + share_bytes(layer));
  const int blocks = std::min(layer.num_tokens, kMaxBlocks), split = num_parts(layer.num_tokens);
  const size_t shared = sizeof(Share) * std::max(layer.top_k, 1);
  const int tokens_per_part = (layer.num_tokens + split - 1) / split;
  const dim3 grid((layer.width + kColumns - 1) / kColumns, layer.num_constant, split);
  const auto launch = [&]<class T, class G>() {
    if (blocks > 0) backward<T, G><<<blocks, kThreads, shared, stream>>>(layer, gradients, shares);
    if (layer.num_constant > 0)
      parameter_parts<T, G><<<grid, kColumns, 0, stream>>>(layer, static_cast<const G*>(gradients.dy), shares,
                                                           tokens_per_part, parts);
  };
  with_element(layer.element, [&]<class T>() {
    gradients.dy_fp32 ? launch.template operator()<T, float>() : launch.template operator()<T, T>();
  });
  if (layer.num_constant > 0)
    add_parts<<<dim3(grid.x, grid.y), kColumns, 0, stream>>>(parts, split, layer.num_constant, layer.width,
                                                             gradients);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda
