// Rings of stages in shared memory, handed on by barriers.
#pragma once

#include <cutlass/arch/barrier.h>

namespace motley::cuda::sm90 {

using Barrier = cutlass::arch::ClusterTransactionBarrier;

// Position in a ring of stages.
struct RingPosition {
  int index = 0;
  uint32_t phase = 0;
  __device__ void advance(int stages) {
    if (++index == stages) index = 0, phase ^= 1;
  }
};
template <int stages>
struct Ring : RingPosition {
  __device__ void advance() { RingPosition::advance(stages); }
};

}  // namespace motley::cuda::sm90
