#include "motley/kernels/cuda/sm90/deal_tiles.h"

#include <algorithm>
#include <climits>

#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/sm90/gemm_params.h"

namespace motley::cuda::sm90 {
namespace {

// Of a tile, in steps along K: to finish one and to begin the next take two, to store one takes four, during
// which the next may be multiplied.
__device__ int cost(int rows) { return max((rows + kTileK - 1) / kTileK, 2) + 2; }

// A thread an expert while they are sorted, then a thread a cluster. Experts of about as many rows are dealt
// in one turn, to the clusters that have less than an even share, in the order of what they have to do
// already. Turns are what this kernel's time goes into, and every product waits for it.
__global__ void __launch_bounds__(kMaxExperts)
    deal(const int* __restrict__ expert_offset, const int* __restrict__ place_of_expert, int num_experts,
         Divisor by_expert, int clusters, int* __restrict__ dealt) {
  __shared__ int rows[kMaxExperts], all_rows;
  __shared__ int2 sorted[kMaxExperts];                      // experts and their rows
  __shared__ __align__(16) unsigned ranked[kMostClusters];  // what a cluster has to do, and its number
  const int thread = threadIdx.x, tiles_per_expert = by_expert.divisor;
  int mine = -1;  // rows of this thread's expert
  if (thread < num_experts && (!place_of_expert || place_of_expert[thread] >= 0))
    mine = expert_offset[thread + 1] - expert_offset[thread];
  rows[thread] = mine;
  if (thread < kMostClusters) ranked[thread] = thread < clusters ? thread : UINT_MAX;
  if (thread == 0) all_rows = 0;
  const int present = __syncthreads_count(mine >= 0);
  const int rows_of_warp = __reduce_add_sync(0xffffffffu, max(mine, 0));
  if (thread % 32 == 0) atomicAdd(&all_rows, rows_of_warp);
  __syncthreads();
  const bool alike = !__syncthreads_or(4l * mine * present > 5l * all_rows);
  if (thread == 0) dealt[0] = !alike;
  if (alike) return;
  dealt += kDealtHeader;
  if (mine >= 0) {
    int before = 0;
#pragma unroll 8
    for (int other = 0; other < num_experts; ++other)
      before += rows[other] > mine || (rows[other] == mine && other < thread);
    sorted[before] = {thread, mine};
  }
  __syncthreads();
  const int sorted_rows = thread < present ? sorted[thread].y : -1;
  const int most_experts = max(1, 8 * clusters / tiles_per_expert);
  int last = thread;  // where this cluster's next tile is noted
  int load = 0;       // of this cluster
  long all = 0;       // of all
  for (int turn = 0; turn < present;) {
    const int most_rows = sorted[turn].y;
    const int in_turn = __syncthreads_count(thread >= turn && thread < min(present, turn + most_experts) &&
                                            4l * sorted_rows >= 3l * most_rows);
    const int tiles = in_turn * tiles_per_expert;
    all += long(tiles) * cost(most_rows);
    int rank = 0;
    if (thread < clusters) {
      const unsigned own = ranked[thread];
#pragma unroll 4
      for (int other = 0; other < clusters; other += 4) {
        const uint4 four = *reinterpret_cast<const uint4*>(ranked + other);
        rank += (four.x < own) + (four.y < own) + (four.z < own) + (four.w < own);
      }
    }
    const int takers = __syncthreads_count(thread < clusters && long(load) * clusters < all);
    if (thread < clusters) {
      if (rank < takers)
        for (int i = rank; i < tiles; i += takers) {
          const int nth = by_expert.divide(i);
          const int2 expert = sorted[turn + nth];
          const int tile = (expert.x - nth) * tiles_per_expert + i;
          load += cost(expert.y);
          dealt[last] = tile;
          last = clusters + tile;
        }
      ranked[thread] = unsigned(load) * kMostClusters + thread;
    }
    turn += in_turn;
  }
  if (thread < clusters) dealt[last] = -1;
}

}  // namespace

void deal_tiles(const ExpertPlan& plan, int num_experts, int tiles_per_expert, int clusters, int* dealt,
                cudaStream_t stream) {
  const int threads = std::max(kMostClusters, (num_experts + 31) / 32 * 32);
  deal<<<1, threads, 0, stream>>>(plan.expert_offset, plan.place_of_expert, num_experts,
                                  Divisor(tiles_per_expert), clusters, dealt);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda::sm90
