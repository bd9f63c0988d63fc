// The two warps of the decode kernel that load.
#pragma once

#include <cute/arch/copy_sm90_tma.hpp>

#include "motley/kernels/cuda/sm90/decode_tasks.cuh"

namespace motley::cuda::sm90::decode {

// The weights of one task.
template <class S>
__device__ void load_task(const Params& p, Shared& shared, const Task& task, Ring<kStages>& stage, int lane) {
  constexpr int kWhole = S::kRowGroups == 8 ? 3 : S::kRowGroups / 2;
  constexpr uint64_t kOnce = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_FIRST);
  const int group = lane % S::kRowGroups, half = lane / S::kRowGroups % 2, along = lane / S::kRowGroups / 2;
  const WeightMaps& maps = task.down ? p.down : p.up;
  const bool gated = !task.down && p.activation.gated(), whole = task.depth % 64 == 0;
  const int row = task.tile * (gated ? S::kRows / 2 : S::kRows);
  for (int k = 0; k < task.k_blocks; ++k, stage.advance()) {
    const int column = k * S::kDepth + along * 64;
    uint64_t* full = &shared.weights_full[stage.index];
    Barrier::wait(&shared.weights_empty[stage.index], stage.phase ^ 1);
    __syncwarp();
    if (whole) {
      if (lane == 0) {
        Barrier::arrive_and_expect_tx(full, kWeightBytes);
        cute::SM90_TMA_LOAD_5D::copy(&maps.whole[kWhole], full, kOnce, shared.weights[stage.index], 0, row, 0,
                                     k * S::kDepthGroups, task.entry.place);
      }
    } else {
      const bool mine = lane < 2 * kWarps && column < task.depth;
      const int boxes = __popc(__ballot_sync(0xffffffffu, mine));
      if (lane == 0) Barrier::arrive_and_expect_tx(full, boxes * kBox);
      __syncwarp();
      if (mine)
        cute::SM90_TMA_LOAD_5D::copy(&maps.pieces, full, kOnce, shared.weights[stage.index] + lane * kBox,
                                     column, row + (gated ? 0 : half * (S::kRows / 2)) + group * 8,
                                     gated ? half : 0, 0, task.entry.place);
    }
  }
}

// Takes tasks from the queue, those that were `asked` for first, hands them to the other warps and streams
// their weights. The answer of the queue takes longer than a small task: kAsked are on their way at a time.
template <class S>
__device__ void load_weights(const Params& p, Shared& shared, unsigned (&asked)[kAsked], int lane) {
  const TaskList<S> tasks(p, shared.plan);
  Ring<kStages> stage;
  Ring<kTaskSlots> slot;
  const auto hand_out = [&](int id) {
    Barrier::wait(&shared.task_empty[slot.index], slot.phase ^ 1);
    if (lane > 0) return;
    shared.tasks[slot.index] = id;
    Barrier::arrive(&shared.task_full[slot.index]);
  };
  while (true)
#pragma unroll
    for (int i = 0; i < kAsked; ++i, slot.advance()) {
      const int id = __shfl_sync(0xffffffffu, asked[i], 0);
      if (id >= tasks.size()) {
        // Once this block counts as done, others may clear the counters: all answers must have come before.
        int last = kNoMoreTasks;  // the least of all, but the compiler cannot know
        for (const unsigned other : asked) last = min(last, static_cast<int>(other));
        hand_out(last);
        return;
      }
      if (lane == 0) asked[i] = ask(*p.counters);
      hand_out(id);
      if (tasks.is_product(id)) load_task<S>(p, shared, tasks.product(id), stage, lane);
    }
}

// The rows of x, or of the first product, that come along.
template <class S>
__device__ void load_rows(const Params& p, Shared& shared, int lane) {
  const TaskList<S> tasks(p, shared.plan);
  Ring<S::kRowStages> stage;
  Ring<kTaskSlots> slot;
  int ready = 0;  // entries whose activated rows are known to be there
  for (int id; (id = take_task(shared, slot, lane)) != kNoMoreTasks; slot.advance()) {
    if (!tasks.is_product(id)) continue;
    const Task task = tasks.product(id);
    if (task.down && task.entry_index >= ready) ready = tasks.wait_for_first_product(task.entry_index, lane);
    for (int column = 0; column < task.depth; column += S::kRowDepth, stage.advance()) {
      const int bytes = 2 * min(S::kRowDepth, task.depth - column);
      Barrier::wait(&shared.rows_empty[stage.index], stage.phase ^ 1);
      uint64_t* full = &shared.rows_full[stage.index];
      if (lane == 0) Barrier::arrive_and_expect_tx(full, bytes * task.entry.count);
      __syncwarp();
      for (int i = lane; i < task.entry.count; i += 32) {
        const int row = task.entry.begin + i;
        const bf16* from = task.down ? p.activated + long(row) * p.expert_width
                                     : p.x + shared.plan.token_of[row] * p.x_stride;
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                cute::cast_smem_ptr_to_uint(shared.rows) + stage.index * S::kRowStageBytes +
                i * S::kRowStride),
            "l"(from + column), "r"(bytes), "r"(cute::cast_smem_ptr_to_uint(full))
            : "memory");
      }
    }
  }
}

}  // namespace motley::cuda::sm90::decode
