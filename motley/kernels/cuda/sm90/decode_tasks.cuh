// What the warps of a block of the decode kernel share, and the tasks that all blocks take from one queue.
#pragma once

#include "motley/kernels/cuda/divisor.h"
#include "motley/kernels/cuda/sm90/decode_sum.cuh"
#include "motley/kernels/cuda/sm90/ring.cuh"
#include "motley/kernels/cuda/sm90/tensor_map.h"

namespace motley::cuda::sm90::decode {

constexpr int kStages = 7, kMaxRowStages = 7, kWarps = kMultiplyingWarps, kTaskSlots = 16;
constexpr int kBox = 8 * 128;  // bytes of 8 rows x 64 columns, the unit of the swizzle
constexpr int kWeightBytes = 2 * kWarps * kBox, kRowBytes = 68 * 1024;
// Floats that the warps that multiply hand over of a piece for one token, and of a task for 32: in one
// buffer, or of smaller tasks in two.
constexpr int kPieceSums = 16 * kWarps, kPartial = 32 * kPieceSums;
static_assert(kPieceSums * kMaxSummedChoices <= kPartial / 2);
constexpr int kNoMoreTasks = -1;
constexpr int kAskBefore = 4;         // stages before a task's end: the queue's answer takes as long as three
constexpr int kTasksPerBlock = 4;     // at least, where tasks are larger than they must be
constexpr long kSumBytes = 96 << 10;  // of weights that a block reads while sums of tokens are made apart

struct alignas(1024) Shared {
  unsigned char weights[kStages][kWeightBytes];
  unsigned char rows[kRowBytes];
  float partial[kPartial];
  DecodePlan plan;
  int tasks[kTaskSlots];
  uint64_t weights_full[kStages], weights_empty[kStages], rows_full[kMaxRowStages], rows_empty[kMaxRowStages];
  uint64_t task_full[kTaskSlots], task_empty[kTaskSlots], task_done[kTaskSlots];
  uint64_t partial_full[2], partial_empty[2];
};
static_assert(sizeof(Shared) <= 227 * 1024);

constexpr int kSplits = 4;  // ways to cut a product, by the row groups of a task: 1, 2, 4, 8

// Weights of one product [P, halves, R / halves, 64 .. of K], gated up in two halves, as a stage takes them:
// whole, or where K is not divisible by 64 by pieces of 8 x 64.
struct WeightMaps {
  CUtensorMap whole[kSplits], pieces;
};

// How the tasks of one product are cut: a stage of weights is 16 << log_groups rows x `stage_depth` of K.
struct Split {
  int depth, log_groups, tiles, stage_depth, stages;
  Divisor by_tiles;
  int row_depth;  // of a stage of the rows that come along: few copies, since each takes as long as 1 KB

  __host__ __device__ int rows() const { return 16 << log_groups; }
  __device__ int groups() const { return 1 << log_groups; }
  __device__ int num_along() const { return kWarps >> log_groups; }
  // Of a warp that multiplies: its 16 of the rows, and its 64 of a stage's K.
  __device__ int group(int warp) const { return warp & (groups() - 1); }
  __device__ int along(int warp) const { return warp >> log_groups; }
};

struct Params : DecodeSum {
  WeightMaps up, down;
  Split up_splits[kSplits], down_splits[kSplits];
  Divisor by_blocks;
  DecodePlanSource plan;
  const bf16 *up_bias, *down_bias;
  long up_bias_stride, down_bias_stride;
  Activation activation;
  bf16* activated;
  int expert_width;
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
    const int wanted = (rows * pitch(longest) + 127) / 128 * 128;
#pragma unroll
    for (int i = 3; i <= kMaxRowStages; ++i)
      if (i == 3 || i * wanted <= kRowBytes) count = i, bytes = kRowBytes / i / 128 * 128;
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
//
// Every thread makes its own before the first weight is asked for, hence divisors and tables.
class TaskList {
 public:
  // Of a plan of that size, which need not be made yet.
  __device__ TaskList(const Params& p, const DecodePlan& plan, const PlanSize& size)
      : token_tiles(size.most_rows <= 8    ? 1
                    : size.most_rows <= 16 ? 2
                    : size.most_rows <= 32 ? 4
                                           : 8),
        row_stages(size.most_rows, max(p.model_width, p.expert_width)),
        up(choose(p.up_splits, size.num_entries)),
        down(choose(p.down_splits, size.num_entries)),
        p_(&p),
        plan_(&plan),
        log_group_size_(log_group_size(size.num_entries)),
        num_up_(up.tiles * size.num_entries),
        sums_(sums_come_along(size)),
        num_products_(num_up_ + down.tiles * (sums_ ? p.num_tokens : size.num_entries)),
        num_(num_products_ + (sums_ ? 0 : num_sum_tasks(p))) {}

  int token_tiles;  // of 8 rows of the fullest expert: 1, 2, 4, 8
  RowStages row_stages;
  Split up, down;

  // Tasks [0, size) are taken from the queue, [size, end) by block i, i + blocks ..
  __device__ int size() const { return sums_ ? num_up_ : num_; }
  __device__ int end() const { return num_; }
  __device__ bool is_product(int id) const { return id < num_products_; }
  __device__ bool with_sum(int id) const { return sums_ && id >= num_up_; }
  __device__ int sum_index(int id) const { return id - num_products_; }
  // Of a task with_sum.
  __device__ int token_of(int id) const { return down.by_tiles.divide(id - num_up_); }
  __device__ int tile_of(int id) const { return id - num_up_ - token_of(id) * down.tiles; }
  __device__ Split split_of(bool of_down) const { return of_down ? down : up; }
  // Whether the warps that multiply hand a task's sums over to the warp that finishes tasks.
  __device__ bool hands_over(int id) const {
    return is_product(id) && (with_sum(id) || split_of(id >= num_up_).log_groups < 3);
  }
  __device__ int num_partials() const { return token_tiles == 4 ? 1 : 2; }
  // Whether other blocks wait for a task.
  __device__ bool is_counted(int id) const { return id < num_up_ || (is_product(id) && !sums_); }

  // Whether the warp that loads rows leaves the counters for this block, well before its end. Tasks of the
  // block may not be counted yet; but it has seen the first product of its tokens' experts counted, and all
  // blocks together have seen all of it: the last one to leave finds everything counted.
  __device__ bool leaves_with_rows() const {
    return size() + int(blockIdx.x) < end() && p_->zero_experts.num_constant == 0;
  }

  // Of a task that is a product, and not with_sum.
  __device__ Piece piece(int id) const {
    const bool of_down = id >= num_up_;
    const int index = of_down ? id - num_up_ : id;
    const Split split = split_of(of_down);
    const int entry = split.by_tiles.divide(index);
    return {of_down, entry, plan_->entries[entry], index - entry * split.tiles};
  }
  // Calls for every piece of a task, in the order of the experts, which is the one they get ready in.
  template <class Function>
  __device__ void for_each_piece(int id, const Function& function) const {
    const bool sums = with_sum(id);
    const int token = sums ? token_of(id) : 0, tile = sums ? tile_of(id) : 0;
    const int end = sums ? plan_->size.num_entries : is_product(id) ? 1 : 0;
#pragma unroll 1
    for (int entry = 0; entry < end; ++entry)
      if (!sums || plan_->token_of[entry] == token)
        function(sums ? Piece{true, entry, plan_->entries[entry], tile} : piece(id));
  }

  __device__ void count_done(int id) const {
    if (id < num_up_)
      atomicAdd(&p_->counters->up_done[up.by_tiles.divide(id) >> log_group_size_], 1u);
    else if (is_counted(id))
      atomicAdd(&p_->counters->down_done, 1u);
  }
  // Waits for the first product of an entry and gives how many entries, counted from the first, have it: an
  // answer takes as long as a small task, so a warp asks for all groups at once and seldom.
  __device__ int wait_for_first_product(int entry, int lane) const {
    const int entries = min(1 << log_group_size_, plan_->size.num_entries - (lane << log_group_size_));
    while (true) {
      const bool done =
          entries > 0 && load_acquire(&p_->counters->up_done[lane]) == unsigned(entries * up.tiles);
      const int done_groups = __ffs(~__ballot_sync(0xffffffffu, done)) - 1;
      const int done_entries = done_groups < 0 ? plan_->size.num_entries : done_groups << log_group_size_;
      if (entry < done_entries) return done_entries;
    }
  }
  __device__ void wait_for_second_product() const {
    wait_until(p_->counters->down_done, num_products_ - num_up_);
  }

 private:
  static __device__ int log_group_size(int entries) {
    int log = 0;
    while (DecodeCounters::kGroups << log < entries) ++log;
    return log;
  }
  // Where a block with most to do reads little more in the second product than it would from the queue.
  __device__ bool sums_come_along(const PlanSize& size) const {
    if (!size.one_row_each || p_->top_k > kMaxSummedChoices) return false;
    const auto most = [&](int tasks) { return int(p_->by_blocks.divide(tasks + gridDim.x - 1)); };
    const int more = most(p_->num_tokens * down.tiles) * p_->top_k - most(size.num_entries * down.tiles);
    return 2l * more * down.rows() * down.depth <= kSumBytes;
  }
  __device__ Split choose(const Split (&splits)[kSplits], int entries) const {
    // Rows come along once for every task: at most half as many as rows of weights.
    int log_groups = 31 - __clz(token_tiles);
#pragma unroll
    for (int i = 1; i < kSplits; ++i)
      if (log_groups == i - 1 && entries * splits[i].tiles >= kTasksPerBlock * int(gridDim.x)) log_groups = i;
    Split split = splits[log_groups];
    split.row_depth = row_stages.depth(split.depth, split.stage_depth);
    return split;
  }

  const Params* p_;
  const DecodePlan* plan_;
  int log_group_size_, num_up_;
  bool sums_;
  int num_products_, num_;
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
