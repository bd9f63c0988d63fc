// What the warps of a block of the decode kernel share, and the tasks that all blocks take from one queue.
#pragma once

#include "motley/kernels/cuda/sm90/decode_sum.cuh"
#include "motley/kernels/cuda/sm90/ring.cuh"
#include "motley/kernels/cuda/sm90/tensor_map.h"

namespace motley::cuda::sm90::decode {

constexpr int kStages = 7, kWarps = kMultiplyingWarps, kTaskSlots = 16, kAsked = 2;
constexpr int kBox = 8 * 128;  // bytes of 8 rows x 64 columns, the unit of the swizzle
constexpr int kWeightBytes = 2 * kWarps * kBox, kRowBytes = 4 * 64 * 272;
constexpr int kPartial = 64 * 32;  // floats: what the warps along K hand over, at most
constexpr int kNoMoreTasks = -1;

struct alignas(1024) Shared {
  unsigned char weights[kStages][kWeightBytes];
  unsigned char rows[kRowBytes];
  float partial[2][kPartial];
  DecodePlan plan;
  int tasks[kTaskSlots];
  uint64_t weights_full[kStages], weights_empty[kStages], rows_full[kStages], rows_empty[kStages];
  uint64_t task_full[kTaskSlots], task_empty[kTaskSlots], task_done[kTaskSlots];
};
static_assert(sizeof(Shared) <= 227 * 1024);

// Weights of one product [P, halves, R / halves, 64 .. of K], gated up in two halves, as a stage takes them:
// whole (by the number of row groups: 1, 2, 4, 8), or where K is not divisible by 64 by pieces of 8 x 64.
struct WeightMaps {
  CUtensorMap whole[4], pieces;
};

struct Params : DecodeSum {
  WeightMaps up, down;
  DecodePlanSource plan;
  const bf16 *up_bias, *down_bias;
  long up_bias_stride, down_bias_stride;
  Activation activation;
  bf16* activated;
  int expert_width;
};

// A tile of one of the two products.
struct Task {
  bool down;
  int entry_index;
  Entry entry;
  int tile, depth, k_blocks;
};

// Sizes that depend on how many rows an expert has.
template <int kTokenTiles>  // of 8 tokens; as many row groups
struct Sizes {
  static constexpr int kRowGroups = kTokenTiles, kDepthGroups = kWarps / kRowGroups;
  static constexpr int kRows = 16 * kRowGroups, kDepth = 64 * kDepthGroups;
  // The rows that come along have stages of their own, wide enough that a stage of weights needs few copies:
  // 16 to 25 copies of 256 bytes took longer than the 16 KiB of weights beside them.
  static constexpr int kRowDepth = kTokenTiles <= 2 ? kDepth : 2 * kDepth;
  static constexpr int kRowStages = kTokenTiles <= 2 ? kStages : 4;
  static constexpr int kRowStride = 2 * kRowDepth + 16;  // bytes: rows meet no bank twice
  static constexpr int kRowStageBytes = 8 * kTokenTiles * kRowStride;
  static_assert(kRowStages * kRowStageBytes <= kRowBytes);
};

// In the order in which blocks take them: the first product expert by expert, the second likewise, so that it
// seldom waits for the first, and the sums of tokens. A task waits only for tasks before it and for mixes,
// which blocks that run have taken: however few blocks run at once, a launch ends.
template <class S>
class TaskList {
 public:
  __device__ TaskList(const Params& p, const DecodePlan& plan)
      : p_(p),
        plan_(plan),
        up_tiles_(tiles(p.activation.hidden_width(p.expert_width))),
        down_tiles_(tiles(p.model_width)),
        group_size_((plan.num_entries + DecodeCounters::kGroups - 1) / DecodeCounters::kGroups),
        num_up_(up_tiles_ * plan.num_entries),
        num_products_(num_up_ + down_tiles_ * plan.num_entries),
        num_(num_products_ + num_sum_tasks(p)) {}

  __device__ int size() const { return num_; }
  __device__ bool is_product(int id) const { return id < num_products_; }
  __device__ int sum_index(int id) const { return id - num_products_; }
  __device__ Task product(int id) const {
    const bool down = id >= num_up_;
    const int index = down ? id - num_up_ : id, per_entry = down ? down_tiles_ : up_tiles_;
    const int entry = index / per_entry, depth = down ? p_.expert_width : p_.model_width;
    return {down,
            entry,
            plan_.entries[entry],
            index - entry * per_entry,
            depth,
            (depth + S::kDepth - 1) / S::kDepth};
  }

  __device__ void count_done(int id) const {
    if (id < num_up_)
      atomicAdd(&p_.counters->up_done[id / up_tiles_ / group_size_], 1u);
    else if (is_product(id))
      atomicAdd(&p_.counters->down_done, 1u);
  }
  // Waits for the first product of an entry and gives how many entries, counted from the first, have it: an
  // answer takes as long as a small task, so a warp asks for all groups at once and seldom.
  __device__ int wait_for_first_product(int entry, int lane) const {
    const int entries = min(group_size_, plan_.num_entries - lane * group_size_);
    while (true) {
      const bool done =
          entries > 0 && load_acquire(&p_.counters->up_done[lane]) == unsigned(entries * up_tiles_);
      const int done_groups = __ffs(~__ballot_sync(0xffffffffu, done)) - 1;
      const int done_entries = done_groups < 0 ? plan_.num_entries : done_groups * group_size_;
      if (entry < done_entries) return done_entries;
    }
  }
  __device__ void wait_for_second_product() const {
    wait_until(p_.counters->down_done, num_products_ - num_up_);
  }

 private:
  static __device__ int tiles(int rows) { return (rows + S::kRows - 1) / S::kRows; }

  const Params& p_;
  const DecodePlan& plan_;
  const int up_tiles_, down_tiles_, group_size_, num_up_, num_products_, num_;
};

// The next task of the block, kNoMoreTasks at the end.
__device__ inline int take_task(Shared& shared, const Ring<kTaskSlots>& slot, int lane) {
  Barrier::wait(&shared.task_full[slot.index], slot.phase);
  const int id = shared.tasks[slot.index];
  __syncwarp();
  if (lane == 0) Barrier::arrive(&shared.task_empty[slot.index]);
  return id;
}

}  // namespace motley::cuda::sm90::decode
