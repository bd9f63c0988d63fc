// Shared memory, barriers and the order of work of the grouped products.
#pragma once

#include <cutlass/arch/reg_reconfig.h>

#include <cute/arch/cluster_sm90.hpp>
#include <cute/arch/copy_sm90_tma.hpp>
#include <cute/tensor.hpp>

#include "motley/kernels/cuda/sm90/deal_tiles.h"
#include "motley/kernels/cuda/sm90/gemm_params.h"
#include "motley/kernels/cuda/sm90/ring.cuh"

namespace motley::cuda::sm90 {

using Element = cute::bfloat16_t;

constexpr int kStageA = kBlockRows * kTileK;  // elements of one warp group's A block
constexpr int kStageB = kTileN * kTileK;
constexpr int kBoxB = 64 * 64;  // a 64 x 64 piece of an MN-major B

struct Nothing {};

// How 227 KiB are dealt out. stages_a: of a gathered A.
template <int stages_a = 4, class OfEpilogue = Nothing>
struct alignas(1024) SharedStorage {
  static constexpr int kStagesA = stages_a;

  Element a[2][kStagesA][kStageA];  // of each warp group that multiplies
  Element b[kStages][kStageB];
  Element finished[2][kBlockRows * kTileN];
  OfEpilogue of_epilogue;
  uint64_t full[kStages], empty[kStages];
  uint64_t gathered[2][kStagesA];
  uint64_t finished_full[2], finished_empty[2];
};

// A finished tile lies in rows of 256, or transposed in columns of 64; 16-byte chunks are exchanged within
// groups of eight so that neither way of access meets itself in a bank.
template <bool transposed>
__device__ uint32_t finished_offset(int line, int chunk) {  // in bytes
  return line * (transposed ? 2 * kBlockRows : 2 * kTileN) + ((chunk ^ (line % 8)) * 16);
}

__device__ inline void wait(uint64_t& barrier, uint32_t phase) { Barrier::wait(&barrier, phase); }

// What a cluster computes next. Every role walks the same sequence by itself.
struct Work {
  int row_begin, row_end;  // of the plan
  int place;               // of the expert's weights
  int m_tile, n_tile;
};

// Tiles of rows x columns; `group` row tiles share the columns' weights in L2 before the next group.
class RowsWalk {
 public:
  __device__ explicit RowsWalk(const GemmParams& p)
      : p_(p), num_tiles_(*p.num_tiles), next_(blockIdx.x / kClusterBlocks) {
    prefetch();
    advance();
  }
  __device__ bool valid() const { return valid_; }
  __device__ const Work& work() const { return work_; }
  __device__ int k_blocks() const { return (p_.depth + kTileK - 1) / kTileK; }
  __device__ int k_begin() const { return 0; }
  __device__ int b_plane() const { return work_.place; }
  // Rows of the 64 that warp group `half` of block `rank` has; <= 0: none.
  __device__ int block_begin(int half, int rank) const {
    return work_.row_begin + (half * kClusterBlocks + rank) * kBlockRows;
  }
  __device__ bool active(int half, int rank) const { return block_begin(half, rank) < work_.row_end; }
  __device__ void advance() {
    valid_ = tile_valid_;
    work_ = {tile_.row_begin, tile_.row_end, tile_.place, 0, n_};
    prefetch();
  }

 private:
  // The tile after this one is read while this one is computed.
  __device__ void prefetch() {
    tile_valid_ = next_ < num_tiles_ * p_.num_n_tiles;
    if (!tile_valid_) return;
    const int per_group = p_.group * p_.num_n_tiles;
    const int group = next_ / per_group, within = next_ - group * per_group;
    const int rows = min(p_.group, num_tiles_ - group * p_.group);
    n_ = within / rows;
    const int4 raw = __ldg(reinterpret_cast<const int4*>(p_.tiles) + group * p_.group + within - n_ * rows);
    tile_ = {raw.x, raw.y, raw.z, raw.w};
    next_ += gridDim.x / kClusterBlocks;
  }

  const GemmParams& p_;
  int num_tiles_, next_, n_ = 0;
  bool valid_ = false, tile_valid_ = false;
  RowTile tile_{};
  Work work_{};
};

// Tiles of every expert's outer product. Experts that are not here are passed over.
class OuterWalk {
 public:
  __device__ explicit OuterWalk(const GemmParams& p) : p_(p), next_(blockIdx.x / kClusterBlocks) {
    if (p.dealt && __ldg(p.dealt)) {
      dealt_ = p.dealt + kDealtHeader;
      next_ = __ldg(dealt_ + next_);
    }
    prefetch();
    advance();
  }
  __device__ bool valid() const { return valid_; }
  __device__ const Work& work() const { return work_; }
  __device__ int k_blocks() const { return (work_.row_end - work_.row_begin + kTileK - 1) / kTileK; }
  __device__ int k_begin() const { return work_.row_begin; }
  __device__ int b_plane() const { return 0; }
  __device__ int block_begin(int half, int rank) const {
    return (work_.m_tile * 2 * kClusterBlocks + half * kClusterBlocks + rank) * kBlockRows;
  }
  __device__ bool active(int half, int rank) const { return block_begin(half, rank) < p_.gathered_width; }
  __device__ void advance() {
    valid_ = ahead_valid_;
    work_ = ahead_;
    prefetch();
  }

 private:
  // The offsets of the tile after this one are read while this one is computed.
  __device__ void prefetch() {
    const int per_expert = p_.num_m_tiles * p_.num_n_tiles;
    for (;;) {
      const int expert = next_ / per_expert;
      ahead_valid_ = next_ >= 0 && expert < p_.num_experts;
      if (!ahead_valid_) return;
      const int within = next_ - expert * per_expert, clusters = gridDim.x / kClusterBlocks;
      const int place = p_.place_of_expert ? __ldg(p_.place_of_expert + expert) : expert;
      next_ = dealt_ ? __ldg(dealt_ + clusters + next_) : next_ + clusters;
      if (place < 0) continue;
      const int n = within / p_.num_m_tiles;
      ahead_ = {__ldg(p_.expert_offset + expert), __ldg(p_.expert_offset + expert + 1), place,
                within - n * p_.num_m_tiles, n};
      return;
    }
  }

  const GemmParams& p_;
  const int* dealt_ = nullptr;
  int next_;
  bool valid_ = false, ahead_valid_ = false;
  Work work_{}, ahead_{};
};

}  // namespace motley::cuda::sm90
