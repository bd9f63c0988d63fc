#include "motley/kernels/cuda/routing_plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda {
namespace {

// A block counts and later places kChunk consecutive assignments; a warp kWarpChunk of them, in order,
// so that the sort is stable. The last bin collects assignments without a row.
constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kWarpChunk = 256;
constexpr int kChunk = kWarps * kWarpChunk;
constexpr int kScanThreads = 1024;
constexpr unsigned kAllLanes = 0xffffffffu;

int num_chunks(int num_assignments) { return std::max(1, (num_assignments + kChunk - 1) / kChunk); }

__device__ int bin_of(const int* slots, int assignment, int num_assignments, int num_experts) {
  if (assignment >= num_assignments) return num_experts;
  const int slot = slots[assignment];
  return slot >= 0 && slot < num_experts ? slot : num_experts;
}

// Exclusive prefix sum of one value per thread over a block of kScanThreads; `total` gets the sum.
__device__ int block_scan(int value, int* warp_sums, int* total) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int inclusive = value;
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(kAllLanes, inclusive, step);
    if (lane >= step) inclusive += other;
  }
  if (lane == 31) warp_sums[warp] = inclusive;
  __syncthreads();
  if (warp == 0) {
    int sum = warp_sums[lane];
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += other;
    }
    warp_sums[lane] = sum;
  }
  __syncthreads();
  const int before = warp == 0 ? 0 : warp_sums[warp - 1];
  *total = warp_sums[31];
  __syncthreads();  // warp_sums may be reused at once
  return before + inclusive - value;
}

// Every thread has its expert's rows [begin, begin + count) in registers (count 0 without an expert).
__device__ void write_tiles(int count, int begin, int place, int num_experts, const TileSchedule& schedule,
                            int* warp_sums) {
  __shared__ int first_tile[kScanThreads], expert_begin[kScanThreads], expert_end[kScanThreads],
      expert_place[kScanThreads];
  int num_tiles;
  const int tiles = place < 0 ? 0 : (count + kTileRows - 1) / kTileRows;
  first_tile[threadIdx.x] = block_scan(tiles, warp_sums, &num_tiles);
  expert_begin[threadIdx.x] = begin;
  expert_end[threadIdx.x] = begin + count;
  expert_place[threadIdx.x] = place;
  __syncthreads();
  for (int tile = threadIdx.x; tile < num_tiles; tile += kScanThreads) {
    int low = 0, high = num_experts - 1;  // the last expert whose first tile is not after `tile`
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (first_tile[middle] <= tile)
        low = middle;
      else
        high = middle - 1;
    }
    const int row = expert_begin[low] + (tile - first_tile[low]) * kTileRows;
    schedule.tiles[tile] = {low, row, min(row + kTileRows, expert_end[low]), expert_place[low]};
  }
  if (threadIdx.x == 0) *schedule.num_tiles = num_tiles;
}

// counts [E][num_chunks]: assignments of each chunk to each expert.
__global__ void __launch_bounds__(kThreads)
    plan_count(const int* slots, int num_assignments, int num_experts, int* counts) {
  __shared__ int histogram[kMaxExperts + 1];
  for (int e = threadIdx.x; e <= num_experts; e += kThreads) histogram[e] = 0;
  __syncthreads();
  const int lane = threadIdx.x % 32;
  for (int i = 0; i < kChunk; i += kThreads) {
    const int bin = bin_of(slots, blockIdx.x * kChunk + i + threadIdx.x, num_assignments, num_experts);
    const unsigned peers = __match_any_sync(kAllLanes, bin);
    if (lane == __ffs(peers) - 1) atomicAdd(&histogram[bin], __popc(peers));
  }
  __syncthreads();
  for (int e = threadIdx.x; e < num_experts; e += kThreads) counts[e * gridDim.x + blockIdx.x] = histogram[e];
}

// Turns counts into each chunk's first place among its expert's rows; writes offsets and the schedule.
__global__ void __launch_bounds__(kScanThreads)
    plan_scan(int* counts, int chunks, int num_experts, int* expert_offset, TileSchedule schedule) {
  __shared__ int warp_sums[32], expert_rows[kScanThreads];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  expert_rows[threadIdx.x] = 0;
  __syncthreads();
  for (int e = warp; e < num_experts; e += kScanThreads / 32) {
    int carry = 0;
    for (int first = 0; first < chunks; first += 32) {
      const int chunk = first + lane;
      const int count = chunk < chunks ? counts[e * chunks + chunk] : 0;
      int inclusive = count;
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(kAllLanes, inclusive, step);
        if (lane >= step) inclusive += other;
      }
      if (chunk < chunks) counts[e * chunks + chunk] = carry + inclusive - count;
      carry += __shfl_sync(kAllLanes, inclusive, 31);
    }
    if (lane == 0) expert_rows[e] = carry;
  }
  __syncthreads();
  int total;
  const int e = threadIdx.x, count = expert_rows[e];
  const int begin = block_scan(count, warp_sums, &total);
  if (e < num_experts) expert_offset[e] = begin;
  if (e == 0) expert_offset[num_experts] = total;
  write_tiles(count, begin, e, num_experts, schedule, warp_sums);
}

// A warp counts its kWarpChunk assignments from `first` in mine [E + 1].
__device__ void count_chunk(const int* slots, int first, int num_assignments, int num_experts, int* mine) {
  const int lane = threadIdx.x % 32;
  for (int i = lane; i < kWarpChunk; i += 32) {
    const int bin = bin_of(slots, first + i, num_assignments, num_experts);
    const unsigned peers = __match_any_sync(kAllLanes, bin);
    if (lane == __ffs(peers) - 1) mine[bin] += __popc(peers);
    __syncwarp();
  }
}

// Gives them the rows from mine[expert] on, in order.
__device__ void place_chunk(const int* slots, int first, int num_assignments, int num_experts, int* mine,
                            const RoutingPlanBuffers& plan) {
  const int lane = threadIdx.x % 32;
  for (int i = lane; i < kWarpChunk; i += 32) {
    const int assignment = first + i;
    const int bin = bin_of(slots, assignment, num_assignments, num_experts);
    const unsigned peers = __match_any_sync(kAllLanes, bin);
    const int row = mine[bin] + __popc(peers & ((1u << lane) - 1));
    __syncwarp();
    if (lane == __ffs(peers) - 1) mine[bin] += __popc(peers);
    __syncwarp();
    if (assignment < num_assignments) {
      plan.token_rows[assignment] = bin < num_experts ? row : -1;
      if (bin < num_experts) plan.row_assignment[row] = assignment;
    }
  }
}

// Turns the counts of the warps into each warp's first row, from `row` on.
__device__ void start_rows(int* next_row, int bins, int expert, int row) {
  for (int w = 0; w < kWarps; ++w) {
    const int count = next_row[w * bins + expert];
    next_row[w * bins + expert] = row;
    row += count;
  }
}

__global__ void __launch_bounds__(kThreads) plan_place(const int* slots, int num_assignments, int num_experts,
                                                       const int* chunk_first, RoutingPlanBuffers plan) {
  extern __shared__ int next_row[];  // [kWarps][E + 1]: counts of each warp, then its next row per expert
  const int warp = threadIdx.x / 32, bins = num_experts + 1;
  for (int i = threadIdx.x; i < kWarps * bins; i += kThreads) next_row[i] = 0;
  __syncthreads();
  int* mine = next_row + warp * bins;
  const int first = blockIdx.x * kChunk + warp * kWarpChunk;
  count_chunk(slots, first, num_assignments, num_experts, mine);
  __syncthreads();
  for (int e = threadIdx.x; e < num_experts; e += kThreads)
    start_rows(next_row, bins, e, plan.expert_offset[e] + chunk_first[e * gridDim.x + blockIdx.x]);
  __syncthreads();
  place_chunk(slots, first, num_assignments, num_experts, mine, plan);
  const int num_rows = plan.expert_offset[num_experts];
  for (int row = num_rows + blockIdx.x * kThreads + threadIdx.x; row < num_assignments;
       row += gridDim.x * kThreads)
    plan.row_assignment[row] = -1;
}

// All of it for one chunk, by one block.
__global__ void __launch_bounds__(kScanThreads)
    plan_small(const int* slots, int num_assignments, int num_experts, RoutingPlanBuffers plan,
               TileSchedule schedule) {
  extern __shared__ int next_row[];
  __shared__ int warp_sums[32];
  const int warp = threadIdx.x / 32, bins = num_experts + 1, e = threadIdx.x;
  for (int i = threadIdx.x; i < kWarps * bins; i += kScanThreads) next_row[i] = 0;
  __syncthreads();
  if (warp < kWarps)
    count_chunk(slots, warp * kWarpChunk, num_assignments, num_experts, next_row + warp * bins);
  __syncthreads();
  int count = 0, total;
  if (e < num_experts)
    for (int w = 0; w < kWarps; ++w) count += next_row[w * bins + e];
  const int begin = block_scan(count, warp_sums, &total);
  if (e < num_experts) {
    plan.expert_offset[e] = begin;
    start_rows(next_row, bins, e, begin);
  }
  if (e == 0) plan.expert_offset[num_experts] = total;
  write_tiles(count, begin, e, num_experts, schedule, warp_sums);
  __syncthreads();
  if (warp < kWarps)
    place_chunk(slots, warp * kWarpChunk, num_assignments, num_experts, next_row + warp * bins, plan);
  for (int row = total + threadIdx.x; row < num_assignments; row += kScanThreads)
    plan.row_assignment[row] = -1;
}

__global__ void __launch_bounds__(kScanThreads)
    plan_tiles(const int* expert_offset, int num_experts, const int* place_of_expert, TileSchedule schedule) {
  __shared__ int warp_sums[32];
  const int e = threadIdx.x;
  const bool known = e < num_experts;
  const int begin = known ? expert_offset[e] : 0;
  const int place = !known ? -1 : place_of_expert ? place_of_expert[e] : e;
  write_tiles(known ? expert_offset[e + 1] - begin : 0, begin, place, num_experts, schedule, warp_sums);
}

void check_experts(int num_experts) {
  if (num_experts < 1 || num_experts > kMaxExperts)
    throw std::invalid_argument("[routing_plan] expected 1 to " + std::to_string(kMaxExperts) +
                                " experts, got " + std::to_string(num_experts));
}

}  // namespace

size_t routing_plan_workspace_bytes(int num_assignments, int num_experts) {
  return sizeof(int) * static_cast<size_t>(num_experts) * num_chunks(num_assignments);
}

void routing_plan(const int* slots, int num_assignments, int num_experts, const RoutingPlanBuffers& plan,
                  const TileSchedule& schedule, void* workspace, cudaStream_t stream) {
  check_experts(num_experts);
  const int chunks = num_chunks(num_assignments);
  const size_t shared_bytes = sizeof(int) * kWarps * (num_experts + 1);
  if (chunks == 1) {
    // With what write_tiles keeps, more than the 48 KiB that need no asking.
    MOTLEY_CUDA_CHECK(cudaFuncSetAttribute(plan_small, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(sizeof(int) * kWarps * (kMaxExperts + 1))));
    plan_small<<<1, kScanThreads, shared_bytes, stream>>>(slots, num_assignments, num_experts, plan,
                                                          schedule);
    MOTLEY_CUDA_CHECK(cudaGetLastError());
    return;
  }
  int* counts = static_cast<int*>(workspace);
  plan_count<<<chunks, kThreads, 0, stream>>>(slots, num_assignments, num_experts, counts);
  plan_scan<<<1, kScanThreads, 0, stream>>>(counts, chunks, num_experts, plan.expert_offset, schedule);
  plan_place<<<chunks, kThreads, shared_bytes, stream>>>(slots, num_assignments, num_experts, counts, plan);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void tile_schedule(const int* expert_offset, int num_experts, const int* place_of_expert,
                   const TileSchedule& schedule, cudaStream_t stream) {
  check_experts(num_experts);
  plan_tiles<<<1, kScanThreads, 0, stream>>>(expert_offset, num_experts, place_of_expert, schedule);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda
