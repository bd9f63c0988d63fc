// What the decode kernel adds up at the end: a token's rows and zero-computation experts.
#pragma once

#include "motley/kernels/cuda/constant_expert.cuh"
#include "motley/kernels/cuda/sm90/decode_counters.cuh"
#include "motley/kernels/cuda/sm90/decode_plan.cuh"

namespace motley::cuda::sm90::decode {

using bf16 = __nv_bfloat16;

struct DecodeSum {
  const bf16* x;
  long x_stride;
  const float* gate_weights;
  bf16* rows;
  void* y;
  bool y_fp32;
  int num_tokens, top_k, model_width;
  ZeroExpertLayer zero_experts;  // none: no kinds
  float2* mixes;                 // of every choice of a constant expert: the weights of x and of its vector
  DecodeCounters* counters;
};

// The mixes of the constant experts that tokens chose, a warp each, while the first weights are on their way.
__device__ inline void mix_constants(const DecodeSum& p, int lane) {
  const ZeroExpertLayer& zero = p.zero_experts;
  while (true) {
    int i = 0;
    if (lane == 0) i = atomicAdd(&p.counters->next_mix, 1u);
    i = __shfl_sync(0xffffffffu, i, 0);
    if (i >= p.num_tokens * p.top_k) return;
    const int constant = what_slot_gives(zero, zero.slots[i]);
    if (constant >= 0) {
      const bf16* gate = static_cast<const bf16*>(zero.constant_gate) + 2l * constant * p.model_width;
      const float2 mix = constant_mix(
          warp_sum(logit_difference<Vector>(p.x + i / p.top_k * p.x_stride, gate, p.model_width, lane, 32)));
      const float weight = p.gate_weights[i];
      if (lane == 0) p.mixes[i] = {weight * mix.x, weight * mix.y};
    }
    if (lane > 0) continue;
    fence_gpu();
    atomicAdd(&p.counters->mixes_done, 1u);
  }
}
__device__ inline void wait_for_mixes(const DecodeSum& p) {
  if (p.zero_experts.num_constant > 0) wait_until(p.counters->mixes_done, p.num_tokens * p.top_k);
}

// What a token's choices without a row give in 8 columns.
__device__ inline void add_zero_experts(const DecodeSum& p, const DecodePlan& plan, int token, int column,
                                        float (&sum)[8]) {
  const ZeroExpertLayer& zero = p.zero_experts;
  float of_x = 0.f;
  bool uses_x = false;
  for (int choice = token * p.top_k; choice < (token + 1) * p.top_k; ++choice) {
    if (plan.row_of[choice] >= 0) continue;
    const int gives = what_slot_gives(zero, zero.slots[choice]);
    if (gives == kGivesNothing) continue;
    uses_x = true;
    if (gives == kGivesX) {
      of_x += p.gate_weights[choice];
      continue;
    }
    const float2 mix = __ldcg(&p.mixes[choice]);
    const auto vector = load(static_cast<const bf16*>(zero.constant) + long(gives) * p.model_width + column);
    of_x += mix.x;
    for (int j = 0; j < 8; ++j) sum[j] += mix.y * vector[j];
  }
  if (!uses_x) return;
  const auto x = load(p.x + token * p.x_stride + column);
  for (int j = 0; j < 8; ++j) sum[j] += of_x * x[j];
}

// 8 columns of y from the sum of the experts' rows.
__device__ inline void finish_token(const DecodeSum& p, const DecodePlan& plan, int token, int column,
                                    float (&sum)[8]) {
  if (p.zero_experts.num_experts > 0) add_zero_experts(p, plan, token, column, sum);
  const long to = long(token) * p.model_width + column;
  if (p.y_fp32)
    store(static_cast<float*>(p.y) + to, sum);
  else
    store(static_cast<bf16*>(p.y) + to, sum);
}

// y from the rows of all experts, 8 columns of a token a thread.
constexpr int kSumThreads = 32 * kMultiplyingWarps;
__device__ inline int num_sum_tasks(const DecodeSum& p) {
  return (p.num_tokens * (p.model_width / 8) + kSumThreads - 1) / kSumThreads;
}
__device__ inline void sum_tokens(const DecodeSum& p, const DecodePlan& plan, int task, int thread) {
  const int i = task * kSumThreads + thread, per_token = p.model_width / 8;
  const int token = i / per_token, column = i % per_token * 8;
  if (token >= p.num_tokens) return;
  float sum[8] = {};
  constexpr int kTogether = 8;  // choices whose loads are on their way at a time
  for (int first = 0; first < p.top_k; first += kTogether) {
    uint4 bits[kTogether];
    float weights[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const int choice = token * p.top_k + min(first + k, p.top_k - 1), row = plan.row_of[choice];
      bits[k] = __ldcg(reinterpret_cast<const uint4*>(p.rows + long(max(row, 0)) * p.model_width + column));
      weights[k] = p.gate_weights[choice];
      if (row < 0 || first + k >= p.top_k) bits[k] = {}, weights[k] = 0.f;
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 both = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(&bits[k])[j]);
        sum[2 * j] += weights[k] * both.x;
        sum[2 * j + 1] += weights[k] * both.y;
      }
  }
  finish_token(p, plan, token, column, sum);
}

}  // namespace motley::cuda::sm90::decode
