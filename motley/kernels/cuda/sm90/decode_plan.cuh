// Which rows a block of the decode kernel computes: every block makes the whole plan for itself, in shared
// memory, which costs less than another launch.
#pragma once

#include "motley/kernels/cuda/divisor.h"
#include "motley/kernels/cuda/sm90/decode.h"

namespace motley::cuda::sm90::decode {

constexpr int kMultiplyingWarps = 8, kDecodeWarps = kMultiplyingWarps + 4, kDecodeThreads = 32 * kDecodeWarps;
constexpr int kGroupRows = 64;  // an expert with more rows reads its weights again
constexpr int kMaxEntries = kDecodeAssignments;
constexpr int kMaxSummedChoices = 16;  // of a token whose sum may come with the second product

// Rows [begin, begin + count) of the plan, count <= kGroupRows, of the expert at `place`.
struct Entry {
  int place;
  short begin, count;
};

struct PlanSize {
  int num_entries, most_rows;
  bool one_row_each;  // entry e is row e; known only of plans that one warp makes
  bool operator==(const PlanSize&) const = default;
};

struct DecodePlan {
  PlanSize size;
  Entry entries[kMaxEntries];
  short token_of[kDecodeAssignments];  // of each row
  short row_of[kDecodeAssignments];    // of each assignment, -1 without one here
  short slot_of[kDecodeAssignments];   // of each assignment, -1 where it is no expert with weights
  int begin[kMaxExperts];              // of each expert, -1 where it is not here; counts before
  int warp_sums[kDecodeWarps];
};

// Exclusive prefix sum over the block.
__device__ inline int decode_scan(int value, DecodePlan& plan) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int inclusive = value;
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, inclusive, step);
    if (lane >= step) inclusive += other;
  }
  if (lane == 31) plan.warp_sums[warp] = inclusive;
  __syncthreads();
  int before = 0;
  for (int w = 0; w < warp; ++w) before += plan.warp_sums[w];
  return before + inclusive - value;
}

struct DecodePlanSource {
  const int *slots, *row_assignment, *expert_offset, *place_of_expert;
  int num_experts, num_assignments, top_k;
  Divisor by_top_k;
};

// At most one assignment a lane: a single warp makes the plan, from its other lanes' slots.
__device__ inline void make_plan_in_warp(const DecodePlanSource& from, DecodePlan& plan, int lane) {
  constexpr unsigned kAll = 0xffffffffu;
  const bool known = lane < from.num_assignments;
  const int slot = known ? from.slots[lane] : -1;
  const bool has_row = slot >= 0 && slot < from.num_experts;
  const int place = !has_row ? -1 : from.place_of_expert ? from.place_of_expert[slot] : slot;
  const bool here = place >= 0;
  const unsigned peers = __match_any_sync(kAll, here ? slot : -1);
  const bool first = here && lane == __ffs(peers) - 1;
  const int key = here ? 2 * slot + first : 2 * kMaxExperts;
  int row = here ? __popc(peers & ((1u << lane) - 1)) : -1, entry = 0;
  constexpr int kTogether = 8;
#pragma unroll 1
  for (int others = 0; others < from.num_assignments; others += kTogether)
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int theirs = __shfl_sync(kAll, key, others + i);
      if (here && theirs >> 1 < slot) ++row, entry += theirs & 1;
    }
  if (first) plan.entries[entry] = {place, short(row), short(__popc(peers))};
  if (here) plan.token_of[row] = from.by_top_k.divide(lane);
  if (known) plan.row_of[lane] = row;
  const int most = __reduce_max_sync(kAll, here ? __popc(peers) : 0);
  const int entries = __popc(__ballot_sync(kAll, first));
  if (lane == 0) plan.size = {entries, most, most == 1};
}

__device__ inline void make_decode_plan(const DecodePlanSource& from, DecodePlan& plan) {
  if (from.slots && from.num_assignments <= 32) {
    if (threadIdx.x < 32) make_plan_in_warp(from, plan, threadIdx.x);
    __syncthreads();
    return;
  }
  const int thread = threadIdx.x, experts = from.num_experts, count = from.num_assignments;
  for (int i = thread; i < count; i += kDecodeThreads) {
    const int slot = from.slots ? from.slots[i] : -1;
    plan.slot_of[i] = slot >= 0 && slot < experts ? slot : -1;
    plan.row_of[i] = -1;
  }
  for (int e = thread; e < experts; e += kDecodeThreads)
    plan.begin[e] = from.slots ? 0 : from.expert_offset[e + 1] - from.expert_offset[e];
  if (thread == 0) plan.size = {};
  __syncthreads();
  if (from.slots && thread < 32)  // ranks among the assignments of one expert, in order
    for (int first = 0; first < count; first += 32) {
      const int assignment = first + thread;
      const int slot = assignment < count ? plan.slot_of[assignment] : -1;
      const bool has_row = slot >= 0;
      const unsigned peers = __match_any_sync(0xffffffffu, has_row ? slot : -1);
      const int rank = has_row ? plan.begin[slot] + __popc(peers & ((1u << thread) - 1)) : -1;
      __syncwarp();
      if (has_row) {
        plan.row_of[assignment] = rank;
        if (thread == 31 - __clz(peers)) plan.begin[slot] = rank + 1;
      }
      __syncwarp();
    }
  __syncthreads();

  // A thread takes consecutive experts; rows and entries are counted in one sum.
  constexpr int kMaxPerThread = (kMaxExperts + kDecodeThreads - 1) / kDecodeThreads;
  const int per_thread = (experts + kDecodeThreads - 1) / kDecodeThreads;
  int rows[kMaxPerThread], places[kMaxPerThread], sum = 0, most = 0;
#pragma unroll
  for (int i = 0; i < kMaxPerThread; ++i) {
    const int e = thread * per_thread + i;
    const bool known = i < per_thread && e < experts;
    rows[i] = known ? plan.begin[e] : 0;
    places[i] = rows[i] == 0 ? -1 : from.place_of_expert ? from.place_of_expert[e] : e;
    if (places[i] >= 0) {
      sum += (rows[i] + kGroupRows - 1) / kGroupRows << 16;
      most = max(most, min(rows[i], kGroupRows));
    }
    sum += rows[i];
  }
  const int before = decode_scan(sum, plan);
  int entry = before >> 16, row = before & 0xffff;
#pragma unroll
  for (int i = 0; i < kMaxPerThread; ++i) {
    const int e = thread * per_thread + i;
    if (i >= per_thread || e >= experts) continue;
    plan.begin[e] = places[i] >= 0 ? row : -1;
    if (places[i] >= 0)
      for (int done = 0; done < rows[i]; done += kGroupRows)
        plan.entries[entry++] = {places[i], short(row + done), short(min(kGroupRows, rows[i] - done))};
    row += rows[i];
  }
  if (most) atomicMax(&plan.size.most_rows, most);
  if (thread == kDecodeThreads - 1) plan.size.num_entries = entry;
  __syncthreads();

  if (from.slots) {
    for (int i = thread; i < count; i += kDecodeThreads) {
      const int rank = plan.row_of[i];
      if (rank < 0) continue;
      const int begin = plan.begin[plan.slot_of[i]];
      plan.row_of[i] = begin < 0 ? -1 : begin + rank;
      if (begin >= 0) plan.token_of[begin + rank] = from.by_top_k.divide(i);
    }
  } else {
    for (int i = thread / 32; i < plan.size.num_entries; i += kDecodeWarps) {
      const Entry one = plan.entries[i];
      for (int r = one.begin + thread % 32; r < one.begin + one.count; r += 32) {
        const int assignment = from.row_assignment[r];
        plan.token_of[r] = from.by_top_k.divide(assignment);
        plan.row_of[assignment] = r;
      }
    }
  }
  __syncthreads();
}

}  // namespace motley::cuda::sm90::decode
