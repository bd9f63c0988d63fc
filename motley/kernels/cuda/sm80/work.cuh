// Which tiles a block computes. The table is made anew by every block from the plan's offsets (a
// microsecond), so that the products need nothing else of the plan and no tile is dealt in vain.
#pragma once

#include "motley/kernels/cuda/routing_plan.h"
#include "motley/kernels/cuda/sm80/gemm_params.h"

namespace motley::cuda::sm80 {

constexpr unsigned kAllLanes = 0xffffffffu;

struct Work {
  bool valid;
  int row_begin, row_end;  // of the plan: M of rows products, K of outer products
  int place;
  int m_begin;  // outer products: first column of A
  int n_tile;
};

// Units are row tiles of 128, or whole experts for outer products; those without a place have none.
class WorkTable {
 public:
  __device__ WorkTable(const PlanParams& p, int* memory, bool outer)
      : p_(p),
        first_unit_(memory),
        row_begin_(memory + p.num_experts),
        place_(row_begin_ + p.num_experts + 1) {
    constexpr int kExperts = kMaxExperts / kThreads;  // of one thread
    __shared__ int warp_sums[kThreads / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int units[kExperts], sum = 0;
#pragma unroll
    for (int i = 0; i < kExperts; ++i) {
      const int e = threadIdx.x * kExperts + i;
      units[i] = 0;
      if (e >= p.num_experts) continue;
      const int begin = p.expert_offset[e], count = p.expert_offset[e + 1] - begin;
      const int place = p.place_of_expert ? p.place_of_expert[e] : e;
      row_begin_[e] = begin;
      place_[e] = place;
      if (e == p.num_experts - 1) row_begin_[e + 1] = begin + count;
      units[i] = place < 0 ? 0 : outer ? 1 : (count + kTileM - 1) / kTileM;
      sum += units[i];
    }
    int inclusive = sum;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(kAllLanes, inclusive, step);
      if (lane >= step) inclusive += other;
    }
    if (lane == 31) warp_sums[warp] = inclusive;
    __syncthreads();
    int before = inclusive - sum;
    num_units_ = 0;
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < warp) before += warp_sums[w];
      num_units_ += warp_sums[w];
    }
#pragma unroll
    for (int i = 0; i < kExperts; ++i) {
      const int e = threadIdx.x * kExperts + i;
      if (e < p.num_experts) first_unit_[e] = before;
      before += units[i];
    }
    __syncthreads();
  }

  // The index-th tile of a rows product: columns of a group of row tiles before the next group.
  __device__ Work rows_tile(int index) const {
    Work work{};
    work.valid = index < num_units_ * p_.num_n_tiles;
    if (!work.valid) return work;
    const int group = index / (kGroup * p_.num_n_tiles), within = index - group * kGroup * p_.num_n_tiles;
    const int units = min(kGroup, num_units_ - group * kGroup);
    work.n_tile = within / units;
    const int unit = group * kGroup + within - work.n_tile * units, e = expert_of(unit);
    work.row_begin = row_begin_[e] + (unit - first_unit_[e]) * kTileM;
    work.row_end = min(work.row_begin + kTileM, row_begin_[e + 1]);
    work.place = place_[e];
    return work;
  }

  __device__ Work outer_tile(int index) const {
    Work work{};
    const int per_expert = p_.num_m_tiles * p_.num_n_tiles, unit = index / per_expert;
    work.valid = unit < num_units_;
    if (!work.valid) return work;
    const int within = index - unit * per_expert, e = expert_of(unit);
    work.n_tile = within / p_.num_m_tiles;
    work.m_begin = (within - work.n_tile * p_.num_m_tiles) * kTileM;
    work.row_begin = row_begin_[e];
    work.row_end = row_begin_[e + 1];
    work.place = place_[e];
    return work;
  }

 private:
  // The last expert whose first unit is not after `unit`, asked of 32 at a time.
  __device__ int expert_of(int unit) const {
    int count = 0;
    for (int first = 0; first < p_.num_experts; first += 32) {
      const int e = first + threadIdx.x % 32;
      const unsigned not_after = __ballot_sync(kAllLanes, e < p_.num_experts && first_unit_[e] <= unit);
      count += __popc(not_after);
      if (not_after != kAllLanes) break;
    }
    return count - 1;
  }

  const PlanParams& p_;
  int *first_unit_, *row_begin_, *place_;
  int num_units_;
};

}  // namespace motley::cuda::sm80
