// Grouped products of all experts in one persistent kernel. Three warp groups a block: two multiply; of
// the third, one warp loads and three finish tiles (activation, stores) while the next is multiplied. A
// gathered operand is fetched by those who multiply it.
//
// An operation Op gives
//   Params : GemmParams      arguments, with those of its epilogue
//   Storage                  how shared memory is dealt out
//   Walk, Gather             RowsWalk with RowGather or NoGather, or OuterWalk with DepthGather or NoGather
//   kGather                  A by cp.async from p.gathered, else rows in order by TMA
//   kMajorA, kMajorB         which of its dimensions is contiguous
//   kOuter, kTransposed      K runs over rows; finished tiles lie transposed in shared memory
//   b_begin(p, n_tile, rank) where this block's half of the tile's B begins
//   direct(), store_direct   of outer products: those that multiply add into memory themselves (not bf16, or
//                            onto what is there), because the finished tile is rounded to bf16
//   Epilogue                 (p, shared, warp, lane, rank); start_tile(); for the tile after this one
//                            prepare(p, work, begin, half, warp, lane); then on 64 rows from `begin`
//                            run(p, work, begin, half, finished, warp, lane)
#pragma once

#include <algorithm>

#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/sm90/consumer.cuh"
#include "motley/kernels/cuda/sm90/producer.cuh"

namespace motley::cuda::sm90 {

template <class Op>
__device__ void finish(const typename Op::Params& p, typename Op::Storage& shared, int warp, int lane,
                       int rank) {
  if constexpr (Op::kOuter)
    if (p.direct()) return;
  uint32_t phases = 0;  // a bit for each half
  typename Op::Epilogue epilogue(p, shared, warp, lane, rank);
  typename Op::Walk walk(p);
  const auto prepare = [&] {
    if (!walk.valid()) return;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (walk.active(half, rank))
        epilogue.prepare(p, walk.work(), walk.block_begin(half, rank), half, warp, lane);
  };
  prepare();
  while (walk.valid()) {
    const Work work = walk.work();
    const int begin = walk.block_begin(0, rank), actives = walk.active(0, rank) + 2 * walk.active(1, rank);
    epilogue.start_tile();
    walk.advance();
    prepare();
#pragma unroll 1  // epilogues are long
    for (int half = 0; half < 2; ++half) {
      if (!(actives >> half & 1)) continue;
      wait(shared.finished_full[half], phases >> half & 1);
      phases ^= 1 << half;
      epilogue.run(p, work, begin + half * kClusterBlocks * kBlockRows, half, shared.finished[half], warp,
                   lane);
      __syncwarp();
      if (lane == 0) Barrier::arrive(&shared.finished_empty[half]);
    }
  }
}

template <class Op>
__global__ void __cluster_dims__(kClusterBlocks, 1, 1) __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const __grid_constant__ typename Op::Params p) {
  extern __shared__ __align__(1024) unsigned char shared_bytes[];
  using Storage = typename Op::Storage;
  Storage& shared = *reinterpret_cast<Storage*>(shared_bytes);
  const int group = cutlass::canonical_warp_group_idx();
  const int rank = cute::block_rank_in_cluster();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      Barrier::init(&shared.full[i], 1);
      Barrier::init(&shared.empty[i], kClusterBlocks * 8);  // warps that multiply
    }
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < Storage::kStagesA; ++i) Barrier::init(&shared.gathered[half][i], 128);
      Barrier::init(&shared.finished_full[half], 4);
      Barrier::init(&shared.finished_empty[half], kEpilogueWarps);
    }
    cutlass::arch::fence_barrier_init();
  }
  cute::cluster_sync();
  // 168 registers a thread at launch, and no more in all: 120 + 2 x 192 = 3 x 168. (With a warp group each
  // for loads and epilogue there would be 128, too few for the compiler to accept products of 256 columns.)
  if (group == 0) {
    cutlass::arch::warpgroup_reg_dealloc<120>();
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0)
      produce<Op>(p, shared, rank);
    else if (warp > 0)
      finish<Op>(p, shared, warp - 1, threadIdx.x % 32, rank);
  } else {
    cutlass::arch::warpgroup_reg_alloc<192>();
    multiply<Op>(p, shared, group - 1, threadIdx.x % 128, rank);
  }
  // Neither block may leave while the other still writes into it.
  __syncwarp();
  cute::cluster_sync();
}

// Of the grid: one block a multiprocessor.
inline int num_clusters() {
  int device = 0, num_sms = 0;
  MOTLEY_CUDA_CHECK(cudaGetDevice(&device));
  MOTLEY_CUDA_CHECK(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device));
  return std::max(1, num_sms / kClusterBlocks);
}

template <class Op>
void grouped_gemm(const typename Op::Params& p, cudaStream_t stream) {
  constexpr size_t kSharedBytes = sizeof(typename Op::Storage);
  static_assert(kSharedBytes <= 227 * 1024);
  MOTLEY_CUDA_CHECK(cudaFuncSetAttribute(grouped_gemm_kernel<Op>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(kSharedBytes)));
  grouped_gemm_kernel<Op><<<num_clusters() * kClusterBlocks, kThreads, kSharedBytes, stream>>>(p);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda::sm90
