// What the warps of a block of the decode kernel share, and the tasks that all blocks take from one queue.
#pragma once

#include "motley/kernels/cuda/sm90/decode_sum.cuh"
#include "motley/kernels/cuda/sm90/ring.cuh"
#include "motley/kernels/cuda/sm90/tensor_map.h"

namespace motley::cuda::sm90::decode {

// Stages of weights, fewer where sums come along: a block that runs ahead holds tasks that others could do,
// and tasks are few.
constexpr int kStages = 7, kFewStages = 5, kMaxRowStages = 7, kWarps = kMultiplyingWarps, kTaskSlots = 16;
constexpr int kBox = 8 * 128;  // bytes of 8 rows x 64 columns, the unit of the swizzle
constexpr int kWeightBytes = 2 * kWarps * kBox, kRowBytes = 68 * 1024;
constexpr int kPartial = 64 * 32;        // floats: what the warps along K hand over, at most
constexpr int kPieceSums = 16 * kWarps;  // floats that they hand over of a piece for one token
static_assert(kPieceSums * kMaxSummedChoices <= kPartial);
constexpr int kNoMoreTasks = -1;
constexpr int kAskBefore = 4;         // stages before a task's end: the queue's answer takes as long as three
constexpr int kTasksPerBlock = 4;     // at least, where tasks are larger than they must be
constexpr long kSumBytes = 96 << 10;  // of weights that a block reads while sums of tokens are made apart

struct alignas(1024) Shared {
  unsigned char weights[kStages][kWeightBytes];
  unsigned char rows[kRowBytes];
  float partial[2][kPartial];
  DecodePlan plan;
  int tasks[kTaskSlots];
  uint64_t weights_full[kStages], weights_empty[kStages], rows_full[kMaxRowStages], rows_empty[kMaxRowStages];
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

// How the tasks of one product are cut: a stage of weights is 16 << log_groups rows x `stage_depth` of K.
struct Split {
  int depth, log_groups, tiles, stage_depth, stages;
  int row_depth;  // of a stage of the rows that come along: few copies, since each takes as long as 1 KB

  __device__ int rows() const { return 16 << log_groups; }
  __device__ int groups() const { return 1 << log_groups; }
  // Of a warp that multiplies: its 16 of the rows, and its 64 of a stage's K.
  __device__ int group(int warp) const { return warp & (groups() - 1); }
  __device__ int along(int warp) const { return warp >> log_groups; }
};

// Of K: as even as K allows, because a box costs its size, whether the array fills it or not.
__host__ __device__ constexpr int stage_depth(int depth, int log_groups) {
  const int chunks = (depth + 63) / 64, most = kWarps >> log_groups, stages = (chunks + most - 1) / most;
  return 64 * ((chunks + stages - 1) / stages);
}

// The weights of an expert's tile of one of the two products.
struct Piece {
  bool down;
  int entry_index;
  Entry entry;
  int tile;
};

// The stages of the rows that come along: as many rows as the fullest expert has, with all of K where three
// stages of that fit.
struct RowStages {
  int rows, count, bytes;
  __device__ RowStages(int most_rows, int longest) : rows(max(most_rows, 1)) {
    count = min(max(kRowBytes / ((rows * pitch(longest) + 127) / 128 * 128), 3), kMaxRowStages);
    bytes = kRowBytes / count / 128 * 128;
  }
  // From one row to the next: rows meet no bank twice.
  static __device__ int pitch(int depth) { return 2 * ((depth + 63) / 64 * 64) + 16; }
  __device__ int depth(int all, int unit) const {
    return rows * pitch(all) <= bytes ? all : (bytes / rows - 16) / (2 * unit) * unit;
  }
};

// In the order in which blocks take them: the first product expert by expert, the second likewise, so that it
// seldom waits for the first, and the sums of tokens. Where every expert has one row, a task of the second
// product may instead be a tile's columns of a token with all of its experts, and the sum with it; these are
// dealt by number, and taken where that fills the blocks. A task waits only for tasks before it and for
// mixes, which blocks that run have taken: however few blocks run at once, a launch ends.
class TaskList {
 public:
  __device__ TaskList(const Params& p, const DecodePlan& plan)
      : token_tiles(plan.most_rows <= 8    ? 1
                    : plan.most_rows <= 16 ? 2
                    : plan.most_rows <= 32 ? 4
                                           : 8),
        row_stages(plan.most_rows, max(p.model_width, p.expert_width)),
        up(split(p.activation.hidden_width(p.expert_width), p.model_width, plan.num_entries)),
        down(split(p.model_width, p.expert_width, plan.num_entries)),
        p_(p),
        plan_(plan),
        group_size_((plan.num_entries + DecodeCounters::kGroups - 1) / DecodeCounters::kGroups),
        num_up_(up.tiles * plan.num_entries),
        sums_(sums_come_along()),
        num_products_(num_up_ + down.tiles * (sums_ ? p.num_tokens : plan.num_entries)),
        num_(num_products_ + (sums_ ? 0 : num_sum_tasks(p))) {}

  const int token_tiles;  // of 8 rows of the fullest expert: 1, 2, 4, 8
  const RowStages row_stages;
  const Split up, down;

  __device__ int weight_stages() const { return sums_ ? kFewStages : kStages; }
  // Tasks [0, size) are taken from the queue, [size, end) by block i, i + blocks ..
  __device__ int size() const { return sums_ ? num_up_ : num_; }
  __device__ int end() const { return num_; }
  __device__ bool is_product(int id) const { return id < num_products_; }
  __device__ bool with_sum(int id) const { return sums_ && id >= num_up_; }
  __device__ int sum_index(int id) const { return id - num_products_; }
  // Of a task with_sum.
  __device__ int token_of(int id) const { return (id - num_up_) / down.tiles; }
  __device__ int tile_of(int id) const { return (id - num_up_) % down.tiles; }
  __device__ Split split_of(bool of_down) const { return of_down ? down : up; }

  // Whether the warp that loads rows leaves the counters for this block, well before its end. Tasks of the
  // block may not be counted yet; but it has seen the first product of its tokens' experts counted, and all
  // blocks together have seen all of it: the last one to leave finds everything counted.
  __device__ bool leaves_with_rows() const {
    return size() + int(blockIdx.x) < end() && p_.zero_experts.num_constant == 0;
  }

  // Calls for every piece of a task, in the order of the experts, which is the one they get ready in.
  template <class Function>
  __device__ void for_each_piece(int id, const Function& function) const {
    const bool sums = with_sum(id);
    const int token = sums ? token_of(id) : 0, tile = sums ? tile_of(id) : 0;
    const int end = sums ? plan_.num_entries : is_product(id) ? 1 : 0;
#pragma unroll 1
    for (int entry = 0; entry < end; ++entry)
      if (!sums || plan_.token_of[entry] == token)
        function(sums ? Piece{true, entry, plan_.entries[entry], tile} : piece(id));
  }

  __device__ void count_done(int id) const {
    if (id < num_up_)
      atomicAdd(&p_.counters->up_done[id / up.tiles / group_size_], 1u);
    else if (is_product(id) && !sums_)
      atomicAdd(&p_.counters->down_done, 1u);
  }
  // Waits for the first product of an entry and gives how many entries, counted from the first, have it: an
  // answer takes as long as a small task, so a warp asks for all groups at once and seldom.
  __device__ int wait_for_first_product(int entry, int lane) const {
    const int entries = min(group_size_, plan_.num_entries - lane * group_size_);
    while (true) {
      const bool done =
          entries > 0 && load_acquire(&p_.counters->up_done[lane]) == unsigned(entries * up.tiles);
      const int done_groups = __ffs(~__ballot_sync(0xffffffffu, done)) - 1;
      const int done_entries = done_groups < 0 ? plan_.num_entries : done_groups * group_size_;
      if (entry < done_entries) return done_entries;
    }
  }
  __device__ void wait_for_second_product() const {
    wait_until(p_.counters->down_done, num_products_ - num_up_);
  }

 private:
  __device__ Piece piece(int id) const {
    const bool of_down = id >= num_up_;
    const int index = of_down ? id - num_up_ : id, per_entry = split_of(of_down).tiles;
    const int entry = index / per_entry;
    return {of_down, entry, plan_.entries[entry], index - entry * per_entry};
  }
  // Where a block with most to do reads little more in the second product than it would from the queue.
  __device__ bool sums_come_along() const {
    if (!plan_.one_row_each || p_.top_k > kMaxSummedChoices) return false;
    const int blocks = gridDim.x;
    const auto most = [&](int tasks) { return (tasks + blocks - 1) / blocks; };
    const int more = most(p_.num_tokens * down.tiles) * p_.top_k - most(plan_.num_entries * down.tiles);
    return 2l * more * down.rows() * down.depth <= kSumBytes;
  }
  __device__ Split split(int rows, int depth, int entries) const {
    Split s{};
    s.depth = depth;
    // Rows come along once for every task: at most half as many as rows of weights.
    s.log_groups = 31 - __clz(token_tiles);
    const auto tiles = [&](int log_groups) { return (rows + (16 << log_groups) - 1) >> (4 + log_groups); };
    while (s.log_groups < 3 && entries * tiles(s.log_groups + 1) >= kTasksPerBlock * int(gridDim.x))
      ++s.log_groups;
    s.tiles = tiles(s.log_groups);
    s.stage_depth = stage_depth(depth, s.log_groups);
    s.stages = (depth + s.stage_depth - 1) / s.stage_depth;
    s.row_depth = row_stages.depth(depth, s.stage_depth);
    return s;
  }

  const Params& p_;
  const DecodePlan& plan_;
  const int group_size_, num_up_;
  const bool sums_;
  const int num_products_, num_;
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
