// Rings of stages in shared memory, handed on by barriers.
#pragma once

#include <cutlass/arch/barrier.h>

namespace motley::cuda::sm90 {

using Barrier = cutlass::arch::ClusterTransactionBarrier;

// Position in a ring of stages.
template <int stages>
struct Ring {
  int index = 0;
  uint32_t phase = 0;
  __device__ void advance() {
    if (++index == stages) index = 0, phase ^= 1;
  }
};

}  // namespace motley::cuda::sm90
