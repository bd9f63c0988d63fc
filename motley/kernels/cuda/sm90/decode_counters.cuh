// How the blocks of one launch of the decode kernel work together.
#pragma once

namespace motley::cuda::sm90::decode {

// Zeros between launches: the last block to be done with them clears them.
struct alignas(128) DecodeCounters {
  static constexpr int kGroups = 32;
  unsigned up_done[kGroups];  // tasks of the first product, by group of entries
  unsigned next_task, next_mix, down_done, mixes_done, blocks_done;
};

// The number of the next task. Not atomicAdd, which the compiler combines over a warp and waits for at once.
__device__ inline unsigned ask(DecodeCounters& counters) {
  return atomicInc(&counters.next_task, 0x7fffffffu);
}

__device__ inline unsigned load_acquire(const unsigned* from) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
__device__ inline void wait_until(const unsigned& counter, unsigned count) {
  while (load_acquire(&counter) < count) {
  }
}
__device__ inline void fence_gpu() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

// One thread of a block, when none of its threads reads them or asks any more.
__device__ inline void leave(DecodeCounters& counters) {
  fence_gpu();
  if (atomicAdd(&counters.blocks_done, 1u) < gridDim.x - 1) return;
  fence_gpu();
  counters = {};
}

}  // namespace motley::cuda::sm90::decode
