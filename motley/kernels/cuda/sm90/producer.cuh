// Loads by TMA, issued by one thread: weights, and rows in order. Each block of a cluster brings half of B
// to both.
#pragma once

#include "motley/kernels/cuda/sm90/pipeline.cuh"

namespace motley::cuda::sm90 {

template <class Op>
__device__ void produce(const typename Op::Params& p, typename Op::Storage& shared, int rank) {
  constexpr uint16_t kBothBlocks = 0b11;
  constexpr uint64_t kEvictNormal = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  constexpr uint32_t kBytes = sizeof(Element) * (kStageB + (Op::kGather ? 0 : 2 * kStageA));
  Ring<kStages> stage;
  for (typename Op::Walk walk(p); walk.valid(); walk.advance()) {
    const int k_blocks = walk.k_blocks(), column = Op::b_begin(p, walk.work().n_tile, rank);
    for (int k = 0; k < k_blocks; ++k, stage.advance()) {
      wait(shared.empty[stage.index], stage.phase ^ 1);
      uint64_t* full = &shared.full[stage.index];
      Barrier::arrive_and_expect_tx(full, kBytes);
      Element* to = shared.b[stage.index] + rank * (kStageB / 2);
      const int depth = walk.k_begin() + k * kTileK;
      if constexpr (Op::kMajorB == cute::GMMA::Major::K) {
        cute::SM90_TMA_LOAD_MULTICAST_3D::copy(&p.map_b, full, kBothBlocks, kEvictNormal, to, depth, column,
                                               walk.b_plane());
      } else {
        for (int box = 0; box < 2; ++box)
          cute::SM90_TMA_LOAD_MULTICAST_3D::copy(&p.map_b, full, kBothBlocks, kEvictNormal, to + box * kBoxB,
                                                 column + box * 64, depth, walk.b_plane());
      }
      if constexpr (!Op::kGather) {
        for (int half = 0; half < 2; ++half)
          cute::SM90_TMA_LOAD_3D::copy(&p.map_a, full, kEvictNormal, shared.a[half][stage.index],
                                       Op::kOuter ? walk.block_begin(half, rank) : depth,
                                       Op::kOuter ? depth : walk.block_begin(half, rank), 0);
      }
    }
  }
}

}  // namespace motley::cuda::sm90
