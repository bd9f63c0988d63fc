#include "motley/kernels/cuda/sm90/deal_tiles.h"

#include <climits>

#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/sm90/gemm_params.h"

namespace motley::cuda::sm90 {
namespace {

constexpr int kDealers = kMaxExperts;
constexpr int kTileCost = 2;  // beside its steps along K, in such steps

// A thread an expert while they are sorted, then a thread a cluster. Experts of about as many rows are dealt
// in one turn, to clusters in the order of what they have to do already.
__global__ void __launch_bounds__(kDealers)
    deal(const int* __restrict__ expert_offset, const int* __restrict__ place_of_expert, int num_experts,
         int tiles_per_expert, int clusters, int* __restrict__ dealt) {
  __shared__ int rows[kMaxExperts], order[kMaxExperts];
  __shared__ __align__(16) int load[kMostClusters];
  const int thread = threadIdx.x;
  int mine = -1;  // rows of this thread's expert
  if (thread < num_experts && (!place_of_expert || place_of_expert[thread] >= 0))
    mine = expert_offset[thread + 1] - expert_offset[thread];
  rows[thread] = mine;
  // Beyond the last cluster nobody is before anybody.
  if (thread < kMostClusters) load[thread] = thread < clusters ? 0 : INT_MAX;
  const int present = __syncthreads_count(mine >= 0);
  const bool alike = !__syncthreads_or(4l * mine * num_experts > 5l * expert_offset[num_experts]);
  if (thread == 0) dealt[0] = !alike;
  if (alike) return;
  dealt += kDealtHeader;
  if (mine >= 0) {
    int before = 0;
#pragma unroll 8
    for (int other = 0; other < num_experts; ++other)
      before += rows[other] > mine || (rows[other] == mine && other < thread);
    order[before] = thread;
  }
  __syncthreads();
  const int sorted = thread < present ? rows[order[thread]] : -1;
  const int most_experts = max(1, 8 * clusters / tiles_per_expert);
  int last = thread;  // where this cluster's next tile is noted
  for (int turn = 0; turn < present;) {
    const int in_turn = __syncthreads_count(thread >= turn && thread < min(present, turn + most_experts) &&
                                            10l * sorted >= 9l * rows[order[turn]]);
    int rank = 0, sum = 0;
    if (thread < clusters) {
      sum = load[thread];
#pragma unroll 4
      for (int other = 0; other < kMostClusters; other += 4) {
        const int4 loads = *reinterpret_cast<const int4*>(load + other);
        rank += (loads.x < sum || (loads.x == sum && other < thread)) +
                (loads.y < sum || (loads.y == sum && other + 1 < thread)) +
                (loads.z < sum || (loads.z == sum && other + 2 < thread)) +
                (loads.w < sum || (loads.w == sum && other + 3 < thread));
      }
    }
    __syncthreads();
    if (thread < clusters) {
      for (int i = rank; i < in_turn * tiles_per_expert; i += clusters) {
        const int nth = i / tiles_per_expert, expert = order[turn + nth];
        const int tile = expert * tiles_per_expert + i - nth * tiles_per_expert;
        sum += (rows[expert] + kTileK - 1) / kTileK + kTileCost;
        dealt[last] = tile;
        last = clusters + tile;
      }
      load[thread] = sum;
    }
    turn += in_turn;
  }
  if (thread < clusters) dealt[last] = -1;
}

}  // namespace

void deal_tiles(const ExpertPlan& plan, int num_experts, int tiles_per_expert, int clusters, int* dealt,
                cudaStream_t stream) {
  deal<<<1, kDealers, 0, stream>>>(plan.expert_offset, plan.place_of_expert, num_experts, tiles_per_expert,
                                   clusters, dealt);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda::sm90
