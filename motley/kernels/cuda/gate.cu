#include "motley/kernels/cuda/gate.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kMaxBlocks = 1024;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ float warp_sum(float value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

__device__ float warp_max(float value) {
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

__device__ bool is_zero(const GateRule& rule, int slot) { return rule.is_zero[slot / 32] >> slot % 32 & 1; }

// A token's slots over the lanes of a warp: lane l has slots l, l + 32, ...
template <int N>
struct Token {
  float logit[N], score[N];
  float mean, deviation;  // of the logits, where the rule standardises

  __device__ Token(const GateRule& rule, const float* logits) {
    const int lane = threadIdx.x % 32;
    float sum = 0.f;
    for (int i = 0; i < N; ++i) {
      logit[i] = i * 32 + lane < rule.num_slots ? logits[i * 32 + lane] : -INFINITY;
      if (i * 32 + lane < rule.num_slots) sum += logit[i];
    }
    float scale = 1.f;
    mean = deviation = 0.f;
    if (rule.standardise) {
      mean = warp_sum(sum) / rule.num_slots;
      float squares = 0.f;
      for (int i = 0; i < N; ++i)
        if (i * 32 + lane < rule.num_slots) squares += (logit[i] - mean) * (logit[i] - mean);
      deviation = sqrtf(warp_sum(squares) / (rule.num_slots - 1));
      scale = rule.norm_std / (deviation > 0.f ? deviation : 1.f);
    }
    float largest = -INFINITY;
    for (int i = 0; i < N; ++i) largest = fmaxf(largest, logit[i]);
    largest = warp_max(largest) * scale;
    float total = 0.f;
    for (int i = 0; i < N; ++i) {
      score[i] = i * 32 + lane < rule.num_slots ? expf(logit[i] * scale - largest) : 0.f;
      total += score[i];
    }
    total = warp_sum(total);
    for (int i = 0; i < N; ++i) score[i] /= total;
  }

  __device__ float score_of(int slot) const {
    float mine = 0.f;
    for (int i = 0; i < N; ++i)
      if (i == slot / 32) mine = score[i];
    return __shfl_sync(kAllLanes, mine, slot % 32);
  }
};

// What a choice weighs among its token's.
__device__ float kept_score(const GateRule& rule, int slot, float score) {
  return rule.normalisation == GateNormalisation::kTopKExceptZero && is_zero(rule, slot) ? 0.f : score;
}

template <int N>
__global__ void __launch_bounds__(kThreads)
    select(const __grid_constant__ GateRule rule, GateSelection selection, bool one_block) {
  extern __shared__ int load[];
  const int lane = threadIdx.x % 32, num_slots = rule.num_slots;
  for (int s = threadIdx.x; s < num_slots; s += kThreads) load[s] = 0;
  __syncthreads();
  for (long t = blockIdx.x * kWarps + threadIdx.x / 32; t < selection.num_tokens; t += gridDim.x * kWarps) {
    const Token<N> token(rule, selection.logits + t * num_slots);
    const bool counts = !selection.token_mask || selection.token_mask[t];
    float ranking[N];
    for (int i = 0; i < N; ++i) {
      const int slot = i * 32 + lane;
      if (slot < num_slots && selection.scores) selection.scores[t * num_slots + slot] = token.score[i];
      ranking[i] = slot >= num_slots
                       ? -INFINITY
                       : token.score[i] + (selection.selection_bias ? selection.selection_bias[slot] : 0.f);
      if (isnan(ranking[i])) ranking[i] = -INFINITY;  // a NaN is never larger
    }
    float chosen_score = 0.f, sum = 0.f;
    int chosen_slot = -1;          // of choice k in lane k
    unsigned long long taken = 0;  // bits of this lane's slots
    for (int k = 0; k < rule.top_k; ++k) {
      float best = -INFINITY;
      int slot = num_slots;
      for (int i = 0; i < N; ++i) {
        const bool free = !(taken >> i & 1) && i * 32 + lane < num_slots;
        if (free && (ranking[i] > best || slot == num_slots)) {
          best = ranking[i];
          slot = i * 32 + lane;
        }
      }
      for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(kAllLanes, best, step);
        const int other_slot = __shfl_xor_sync(kAllLanes, slot, step);
        if (other_slot < num_slots &&
            (slot >= num_slots || other > best || (other == best && other_slot < slot))) {
          best = other;
          slot = other_slot;
        }
      }
      if (slot % 32 == lane) taken |= 1ull << slot / 32;
      const float kept = kept_score(rule, slot, token.score_of(slot));
      sum += kept;
      if (lane == k) {
        chosen_score = kept;
        chosen_slot = slot;
      }
    }
    if (rule.normalisation == GateNormalisation::kNone || !(sum > 0.f)) sum = 1.f;
    if (lane < rule.top_k) {
      selection.slots[t * rule.top_k + lane] = counts ? chosen_slot : -1;
      selection.weights[t * rule.top_k + lane] = counts ? chosen_score / sum * rule.scale : 0.f;
      if (counts) atomicAdd(&load[chosen_slot], 1);
    }
  }
  __syncthreads();
  for (int s = threadIdx.x; s < num_slots; s += kThreads) {
    if (one_block)
      selection.load[s] = load[s];
    else if (load[s] > 0)
      atomicAdd(&selection.load[s], static_cast<unsigned long long>(load[s]));
  }
}

template <int N>
__global__ void __launch_bounds__(kThreads)
    select_backward(const __grid_constant__ GateRule rule, GateGradient gradient) {
  const int lane = threadIdx.x % 32, num_slots = rule.num_slots;
  for (long t = blockIdx.x * kWarps + threadIdx.x / 32; t < gradient.num_tokens; t += gridDim.x * kWarps) {
    const Token<N> token(rule, gradient.logits + t * num_slots);
    // Choice k in lane k: its kept score, and the gradient of its weight.
    const int mine = lane < rule.top_k ? gradient.slots[t * rule.top_k + lane] : -1;
    float kept = 0.f, dweight = 0.f;
    for (int k = 0; k < rule.top_k; ++k) {
      const int slot = __shfl_sync(kAllLanes, mine, k);
      if (slot < 0) continue;
      const float score = token.score_of(slot);
      if (lane == k) kept = kept_score(rule, slot, score);
    }
    if (mine >= 0 && gradient.dweights) dweight = rule.scale * gradient.dweights[t * rule.top_k + lane];
    float dkept = dweight;
    if (rule.normalisation != GateNormalisation::kNone) {
      const float sum = warp_sum(kept);
      if (sum > 0.f) dkept = (dweight - warp_sum(dweight * kept) / sum) / sum;
    }
    if (mine >= 0 && rule.normalisation == GateNormalisation::kTopKExceptZero && is_zero(rule, mine))
      dkept = 0.f;
    float dscore[N];
    for (int i = 0; i < N; ++i) {
      const int slot = i * 32 + lane;
      dscore[i] = gradient.dscores && slot < num_slots ? gradient.dscores[t * num_slots + slot] : 0.f;
    }
    for (int k = 0; k < rule.top_k; ++k) {
      const int slot = __shfl_sync(kAllLanes, mine, k);
      const float value = __shfl_sync(kAllLanes, dkept, k);
      for (int i = 0; i < N; ++i)
        if (slot == i * 32 + lane) dscore[i] += value;
    }
    // Through the softmax, then through the division by the deviation.
    float dot = 0.f;
    for (int i = 0; i < N; ++i) dot += token.score[i] * dscore[i];
    dot = warp_sum(dot);
    float dlogit[N], along = 0.f;
    for (int i = 0; i < N; ++i) {
      dlogit[i] = token.score[i] * (dscore[i] - dot);
      if (i * 32 + lane < num_slots) along += dlogit[i] * token.logit[i];
    }
    float scale = 1.f, pull = 0.f;
    if (rule.standardise) {
      const float deviation = token.deviation;
      scale = rule.norm_std / (deviation > 0.f ? deviation : 1.f);
      along = warp_sum(along);
      if (deviation > 0.f)
        pull = rule.norm_std * along / (deviation * deviation * deviation * (num_slots - 1));
    }
    for (int i = 0; i < N; ++i) {
      const int slot = i * 32 + lane;
      if (slot < num_slots)
        gradient.dlogits[t * num_slots + slot] =
            scale * dlogit[i] - (pull == 0.f ? 0.f : pull * (token.logit[i] - token.mean));
    }
  }
}

void check(const GateRule& rule) {
  if (rule.num_slots < 1 || rule.num_slots > kMaxSlots || rule.top_k < 1 || rule.top_k > kMaxChoices ||
      rule.top_k > rule.num_slots)
    throw std::invalid_argument("[gate] expected at most " + std::to_string(kMaxSlots) + " slots and " +
                                std::to_string(kMaxChoices) + " choices, got " +
                                std::to_string(rule.num_slots) + " and " + std::to_string(rule.top_k));
}

// Calls function.template operator()<N>() with the slots of a lane.
template <class Function>
void with_lane_slots(int num_slots, Function function) {
  if (num_slots <= 32)
    function.template operator()<1>();
  else if (num_slots <= 128)
    function.template operator()<4>();
  else if (num_slots <= 512)
    function.template operator()<16>();
  else if (num_slots <= 1024)
    function.template operator()<32>();
  else
    function.template operator()<64>();
}

// A row of `width` values by a row of `width` values, over a warp.
template <class A, class B>
__device__ float warp_dot(const A* a, const B* b, int width) {
  float sum = 0.f;
  for (int d = threadIdx.x % 32; d < width; d += 32) sum += to_float(a[d]) * to_float(b[d]);
  return warp_sum(sum);
}

template <class X, class W>
__global__ void __launch_bounds__(kThreads)
    token_logits(const X* x, const W* weight, const float* previous, const W* residual, int width,
                 int num_slots, float* logits) {
  const int slot = blockIdx.x * kWarps + threadIdx.x / 32;
  const long token = blockIdx.y;
  if (slot >= num_slots) return;
  float sum = warp_dot(x + token * width, weight + (long)slot * width, width);
  // G(x^j) = W^j x^j + W_g^j G(x^{j-1})  (MoE++ Eq. 6)
  if (residual) sum += warp_dot(previous + token * num_slots, residual + (long)slot * num_slots, num_slots);
  if (threadIdx.x % 32 == 0) logits[token * num_slots + slot] = sum;
}

int num_blocks(int num_tokens) { return std::clamp((num_tokens + kWarps - 1) / kWarps, 1, kMaxBlocks); }

}  // namespace

void select_slots(const GateRule& rule, const GateSelection& selection, cudaStream_t stream) {
  check(rule);
  const int blocks = num_blocks(selection.num_tokens);
  if (blocks > 1)
    MOTLEY_CUDA_CHECK(cudaMemsetAsync(selection.load, 0, sizeof(*selection.load) * rule.num_slots, stream));
  with_lane_slots(rule.num_slots, [&]<int N>() {
    select<N><<<blocks, kThreads, sizeof(int) * rule.num_slots, stream>>>(rule, selection, blocks == 1);
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void select_slots_backward(const GateRule& rule, const GateGradient& gradient, cudaStream_t stream) {
  check(rule);
  if (gradient.num_tokens == 0) return;
  with_lane_slots(rule.num_slots, [&]<int N>() {
    select_backward<N><<<num_blocks(gradient.num_tokens), kThreads, 0, stream>>>(rule, gradient);
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void gate_logits(const void* x, Element x_type, const void* weight, Element weight_type,
                 const float* previous, const void* residual, int num_tokens, int width, int num_slots,
                 float* logits, cudaStream_t stream) {
  if (num_tokens == 0 || num_slots == 0) return;
  const dim3 grid((num_slots + kWarps - 1) / kWarps, num_tokens);
  with_element(x_type, [&]<class X>() {
    with_element(weight_type, [&]<class W>() {
      token_logits<<<grid, kThreads, 0, stream>>>(static_cast<const X*>(x), static_cast<const W*>(weight),
                                                  previous, static_cast<const W*>(residual), width, num_slots,
                                                  logits);
    });
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda
