// A choice of a zero-computation expert, as the kernels that add it up see it.
#pragma once

#include "motley/kernels/cuda/vector.cuh"
#include "motley/kernels/cuda/zero_experts.h"

namespace motley::cuda {

__device__ inline short what_slot_gives(const ZeroExpertLayer& layer, int slot) {
  const int index = slot - layer.first_slot;
  return index < 0 || index >= layer.num_experts ? kGivesNothing : layer.gives[index];
}

// A thread's part of the difference of a constant expert's two logits W_c x, second less first.
template <template <class> class V, class T, class P>
__device__ float logit_difference(const T* x, const P* gate, int width, int thread, int threads) {
  float sum = 0.f;
  for (int column = thread * V<T>::kSize; column < width; column += threads * V<T>::kSize) {
    const V<T> value = load<V>(x + column);
    const V<P> first = load<V>(gate + column), second = load<V>(gate + width + column);
#pragma unroll
    for (int i = 0; i < V<T>::kSize; ++i) sum += (second[i] - first[i]) * value[i];
  }
  return sum;
}

// [a1, a2] = softmax(W_c x) (Eq. 5): of two logits a sigmoid of their difference.
__device__ inline float2 constant_mix(float difference) {
  return {1.f / (1.f + expf(difference)), 1.f / (1.f + expf(-difference))};
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

}  // namespace motley::cuda
