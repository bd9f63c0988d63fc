#include "motley/kernels/cuda/zero_experts.h"

#include <algorithm>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxBlocks = 4096;
constexpr int kColumns = 128;  // of a block of parameter sums
constexpr int kMaxParts = 64;  // of the tokens, each added up by itself
constexpr unsigned kAllLanes = 0xffffffffu;

// The parameters that every thread looks at often; the kinds stay in constant memory.
struct Term {
  float x_scale, v_scale;  // adds x_scale x + v_scale v
  int constant;            // -1 for a copy
  float weight, a1, a2;
};

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

// What a choice is: the index of the zero-computation expert if it adds anything, else -1.
__device__ int active_expert(const ZeroExpertLayer& layer, int slot) {
  const int index = slot - layer.first_slot;
  return index < 0 || index >= layer.num_experts || layer.kinds[index] == ZeroExpertKind::kZero ? -1 : index;
}

// [a1, a2] = softmax(W_c x) (Eq. 5): of two logits a sigmoid of their difference.
__device__ Term term_of(const ZeroExpertLayer& layer, int expert, float weight, float difference) {
  if (layer.kinds[expert] == ZeroExpertKind::kCopy) return {weight, 0.f, -1, weight, 1.f, 0.f};
  const float a1 = 1.f / (1.f + expf(difference)), a2 = 1.f / (1.f + expf(-difference));
  return {weight * a1, weight * a2, layer.constant_of[expert], weight, a1, a2};
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward(const __grid_constant__ ZeroExpertLayer layer, float* y) {
  extern __shared__ Term terms[];
  __shared__ float sums[kWarps][1];
  for (long token = blockIdx.x; token < layer.num_tokens; token += gridDim.x) {
    const T* x = static_cast<const T*>(layer.x) + token * layer.width;
    int num_terms = 0;
    __syncthreads();  // the terms of the block's last token are no longer read
    for (int k = 0; k < layer.top_k; ++k) {
      const int expert = active_expert(layer, layer.slots[token * layer.top_k + k]);
      if (expert < 0) continue;
      float difference[1] = {};
      if (layer.kinds[expert] == ZeroExpertKind::kConstant) {
        const float* gate = layer.constant_gate + 2l * layer.constant_of[expert] * layer.width;
        for (int d = threadIdx.x; d < layer.width; d += kThreads)
          difference[0] += (gate[layer.width + d] - gate[d]) * to_float(x[d]);
        block_sums(difference, sums);
      }
      if (threadIdx.x == 0)
        terms[num_terms] = term_of(layer, expert, layer.weights[token * layer.top_k + k], difference[0]);
      ++num_terms;
    }
    __syncthreads();
    for (int d = threadIdx.x; d < layer.width; d += kThreads) {
      const float value = num_terms > 0 ? to_float(x[d]) : 0.f;
      float sum = 0.f;
      for (int i = 0; i < num_terms; ++i) {
        sum += terms[i].x_scale * value;
        if (terms[i].constant >= 0)
          sum += terms[i].v_scale * layer.constant[(long)terms[i].constant * layer.width + d];
      }
      y[token * layer.width + d] = sum;
    }
  }
}

// What a choice contributes to its parameters: v_scale dy to v, dlogit x to W_c.
struct Share {
  int constant;  // -1: nothing
  float v_scale, dlogit;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    backward(const __grid_constant__ ZeroExpertLayer layer, ZeroExpertGradients out, Share* shares) {
  extern __shared__ Share added[];  // of the token; v_scale is the scale of dy, dlogit that of W_c
  __shared__ float sums[kWarps][3];
  const int width = layer.width;
  for (long token = blockIdx.x; token < layer.num_tokens; token += gridDim.x) {
    const T* x = static_cast<const T*>(layer.x) + token * width;
    const float* dy = out.dy + token * width;
    int num_added = 0;
    __syncthreads();
    for (int k = 0; k < layer.top_k; ++k) {
      const long choice = token * layer.top_k + k;
      const int expert = active_expert(layer, layer.slots[choice]);
      if (expert < 0) {
        if (threadIdx.x == 0) {
          out.dweights[choice] = 0.f;
          shares[choice].constant = -1;
        }
        continue;
      }
      const bool constant = layer.kinds[expert] == ZeroExpertKind::kConstant;
      const float* v = constant ? layer.constant + (long)layer.constant_of[expert] * width : nullptr;
      const float* gate = constant ? layer.constant_gate + 2l * layer.constant_of[expert] * width : nullptr;
      float sum[3] = {};  // <dy, x>, <dy, v>, logit difference
      for (int d = threadIdx.x; d < width; d += kThreads) {
        const float x_d = to_float(x[d]);
        sum[0] += dy[d] * x_d;
        if (constant) {
          sum[1] += dy[d] * v[d];
          sum[2] += (gate[width + d] - gate[d]) * x_d;
        }
      }
      block_sums(sum, sums);
      if (threadIdx.x == 0) {
        const Term term = term_of(layer, expert, layer.weights[choice], sum[2]);
        out.dweights[choice] = term.a1 * sum[0] + term.a2 * sum[1];
        // d(a1)/d(logit 0) = a1 a2 = -d(a2)/d(logit 0).
        const float dlogit = term.weight * term.a1 * term.a2 * (sum[0] - sum[1]);
        added[num_added] = {term.constant, term.x_scale, dlogit};
        shares[choice] = {term.constant, term.v_scale, dlogit};
      }
      ++num_added;
    }
    __syncthreads();
    T* dx = static_cast<T*>(out.dx) + token * width;
    for (int d = threadIdx.x; d < width; d += kThreads) {
      float sum = 0.f;
      for (int i = 0; i < num_added; ++i) {
        sum += added[i].v_scale * dy[d];
        if (added[i].constant >= 0) {
          const float* gate = layer.constant_gate + 2l * added[i].constant * width;
          sum += added[i].dlogit * (gate[d] - gate[width + d]);
        }
      }
      dx[d] = from_float<T>(sum);
    }
  }
}

int num_parts(int num_tokens) { return std::clamp((num_tokens + 63) / 64, 1, kMaxParts); }

// parts [num_parts][Z_constant][2][D]: sums of v_scale dy and of dlogit x over a part of the tokens.
template <class T>
__global__ void __launch_bounds__(kColumns)
    parameter_parts(const __grid_constant__ ZeroExpertLayer layer, const float* dy, const Share* shares,
                    int tokens_per_part, float* parts) {
  const int d = blockIdx.x * kColumns + threadIdx.x, constant = blockIdx.y, part = blockIdx.z;
  const int begin = part * tokens_per_part, end = min(layer.num_tokens, begin + tokens_per_part);
  float v = 0.f, gate = 0.f;
  for (long choice = (long)begin * layer.top_k; choice < (long)end * layer.top_k; ++choice) {
    const Share share = shares[choice];
    if (share.constant != constant || d >= layer.width) continue;
    const long at = choice / layer.top_k * layer.width + d;
    v += share.v_scale * dy[at];
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

void zero_experts(const ZeroExpertLayer& layer, float* y, cudaStream_t stream) {
  if (layer.num_tokens == 0 || layer.width == 0) return;
  const int blocks = std::min(layer.num_tokens, kMaxBlocks);
  const size_t shared = sizeof(Term) * std::max(layer.top_k, 1);
  with_element(layer.element, [&]<class T>() { forward<T><<<blocks, kThreads, shared, stream>>>(layer, y); });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

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
  with_element(layer.element, [&]<class T>() {
    if (blocks > 0) backward<T><<<blocks, kThreads, shared, stream>>>(layer, gradients, shares);
    if (layer.num_constant > 0)
      parameter_parts<T><<<grid, kColumns, 0, stream>>>(layer, gradients.dy, shares, tokens_per_part, parts);
  });
  if (layer.num_constant > 0)
    add_parts<<<dim3(grid.x, grid.y), kColumns, 0, stream>>>(parts, split, layer.num_constant, layer.width,
                                                             gradients);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda
