// Loads of the grouped products: weights and rows in order by TMA, gathered rows by cp.async, both into
// the swizzled layout that wgmma reads (16-byte chunk c of 128-byte line r at place c ^ (r % 8)).
#pragma once

#include "motley/kernels/cuda/sm90/pipeline.cuh"

namespace motley::cuda::sm90 {

__device__ inline void copy_16_bytes(uint32_t shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}

// Rows of a tile, looked up once and followed along K: eight lanes copy the 64 columns of a row.
class RowGather {
 public:
  __device__ RowGather(const GemmParams& p, int lane, int rank)
      : p_(p), rank_(rank), line_(lane / 8), chunk_(lane % 8) {}

  __device__ void start(const RowsWalk& walk) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = walk.block_begin(i / 16, rank_) + line_ + 4 * (i % 16);
      offset_[i] = row < walk.work().row_end
                       ? p_.top_k.divide(__ldg(p_.row_assignment + row)) * p_.gathered_stride + chunk_
                       : kNoRow;
    }
  }
  __device__ void load(const RowsWalk&, int k_block, SharedStorage& shared, int stage) {
    const uint4* from = reinterpret_cast<const uint4*>(p_.gathered) + k_block * (kTileK / 8);
    const bool inside = k_block * kTileK + chunk_ * 8 < p_.gathered_width;
    // Line r = line_ + 4 i has r % 8 = line_ or line_ + 4.
    const uint32_t even = line_ * 128 + (chunk_ ^ line_) * 16, odd = line_ * 128 + (chunk_ ^ (line_ + 4)) * 16;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const bool valid = inside && offset_[i] != kNoRow;
      const uint32_t to = cute::cast_smem_ptr_to_uint(shared.a[i / 16][stage]) + (i % 2 ? odd : even) +
                          i % 16 * 4 * 128;
      copy_16_bytes(to, valid ? from + offset_[i] : reinterpret_cast<const uint4*>(p_.gathered), valid);
    }
  }

 private:
  static constexpr uint32_t kNoRow = 0xffffffffu;
  static constexpr int kCopies = 2 * kBlockRows / 4;  // four rows at a time
  const GemmParams& p_;
  int rank_, line_, chunk_;
  uint32_t offset_[kCopies];
};

// 64 rows of an expert at a time, gathered along K: 16 lanes copy the 128 columns of a row. The lanes
// read the rows' numbers one k block ahead and hand them round.
class DepthGather {
 public:
  __device__ DepthGather(const GemmParams& p, int lane, int rank)
      : p_(p), rank_(rank), lane_(lane), line_(lane / 16), half_(lane / 8 % 2), chunk_(lane % 8) {}

  __device__ void start(const OuterWalk& walk) {
    column_ = walk.block_begin(half_, rank_) + chunk_ * 8;
    prefetch(walk, 0);
  }
  __device__ void load(const OuterWalk& walk, int k_block, SharedStorage& shared, int stage) {
    const uint32_t to = cute::cast_smem_ptr_to_uint(shared.a[half_][stage]) + line_ * 128;
    const bool inside = column_ < p_.gathered_width;
    const uint4* from = reinterpret_cast<const uint4*>(p_.gathered + (inside ? column_ : 0));
    const uint32_t mine[2] = {row_offset(assignment_[0]), row_offset(assignment_[1])};
    prefetch(walk, k_block + 1);
#pragma unroll
    for (int i = 0; i < kTileK / 2; ++i) {  // line 2 i + line_
      const uint32_t offset = __shfl_sync(0xffffffffu, mine[i / 16], i % 16 * 2 + line_);
      const bool valid = inside && offset != kNoRow;
      const int swizzled = chunk_ ^ (i % 4 * 2 + line_);
      copy_16_bytes(to + i * 2 * 128 + swizzled * 16, valid ? from + offset : from, valid);
    }
  }

 private:
  static constexpr uint32_t kNoRow = 0xffffffffu;
  __device__ uint32_t row_offset(int assignment) const {
    return assignment < 0 ? kNoRow : p_.top_k.divide(assignment) * p_.gathered_stride;
  }
  __device__ void prefetch(const OuterWalk& walk, int k_block) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = walk.work().row_begin + k_block * kTileK + 32 * i + lane_;
      assignment_[i] = row < walk.work().row_end ? __ldg(p_.row_assignment + row) : -1;
    }
  }

  const GemmParams& p_;
  int rank_, lane_, line_, half_, chunk_, column_ = 0;
  int assignment_[2];  // of rows lane and 32 + lane of the next k block
};

// One warp.
template <class Op>
__device__ void produce(const typename Op::Params& p, SharedStorage& shared, int lane, int rank) {
  using Walk = typename Op::Walk;
  constexpr uint16_t kBothBlocks = 0b11;
  constexpr uint64_t kEvictNormal = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL);
  constexpr uint32_t kBytes = sizeof(Element) * (kStageB + (Op::kGather ? 0 : 2 * kStageA));
  const bool elected = lane == 0;
  if (!Op::kGather && !elected) return;

  typename Op::Gather gather(p, lane, rank);
  Stage stage;
  for (Walk walk(p); walk.valid(); walk.advance()) {
    const int k_blocks = walk.k_blocks();
    if constexpr (Op::kGather) gather.start(walk);
    for (int k = 0; k < k_blocks; ++k, stage.advance()) {
      wait(shared.empty[stage.index], stage.phase ^ 1);
      uint64_t* full = &shared.full[stage.index];
      if (elected) {
        Barrier::arrive_and_expect_tx(full, kBytes);
        // Each block brings half of B to both.
        Element* to = shared.b[stage.index] + rank * (kStageB / 2);
        const int depth = walk.k_begin() + k * kTileK;
        if constexpr (Op::kMajorB == cute::GMMA::Major::K) {
          cute::SM90_TMA_LOAD_MULTICAST_3D::copy(&p.map_b, full, kBothBlocks, kEvictNormal, to, depth,
                                                 Op::b_begin(p, walk.work().n_tile, rank), walk.b_plane());
        } else {
#pragma unroll
          for (int box = 0; box < 2; ++box)
            cute::SM90_TMA_LOAD_MULTICAST_3D::copy(&p.map_b, full, kBothBlocks, kEvictNormal,
                                                   to + box * kBoxB,
                                                   Op::b_begin(p, walk.work().n_tile, rank) + box * 64, depth,
                                                   walk.b_plane());
        }
        if constexpr (!Op::kGather) {
#pragma unroll
          for (int half = 0; half < 2; ++half)
            cute::SM90_TMA_LOAD_3D::copy(&p.map_a, full, kEvictNormal, shared.a[half][stage.index],
                                         k * kTileK, walk.block_begin(half, rank), 0);
        }
      }
      if constexpr (Op::kGather) {
        gather.load(walk, k, shared, stage.index);
        cutlass::arch::cpasync_barrier_arrive_noinc(full);
      }
    }
  }
}

}  // namespace motley::cuda::sm90
