// The two warps of the decode kernel that load.
#pragma once

#include <cute/arch/copy_sm90_tma.hpp>

#include "motley/kernels/cuda/sm90/decode_tasks.cuh"

namespace motley::cuda::sm90::decode {

// The weights of one piece. Calls ask_next where kAskBefore stages are left, or at the first of fewer.
template <class AskNext>
__device__ __forceinline__ void load_piece(const Params& p, Shared& shared, const TaskList& tasks,
                                           const Piece& piece, RingPosition& stage, int lane,
                                           const AskNext& ask_next) {
  const Split split = tasks.split_of(piece.down);
  constexpr uint64_t kOnce = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_FIRST);
  const int groups = split.groups(), group = lane & (groups - 1), half = lane >> split.log_groups & 1,
            along = lane >> split.log_groups >> 1;
  const WeightMaps& maps = piece.down ? p.down : p.up;
  const bool gated = !piece.down && p.activation.gated(), whole = split.depth % 64 == 0;
  const int row = piece.tile * (gated ? split.rows() / 2 : split.rows());
#pragma unroll 1
  for (int k = 0; k < split.stages; ++k, stage.advance(tasks.weight_stages())) {
    if (k == max(0, split.stages - kAskBefore)) ask_next();
    uint64_t* full = &shared.weights_full[stage.index];
    Barrier::wait(&shared.weights_empty[stage.index], stage.phase ^ 1);
    __syncwarp();
    if (whole) {
      if (lane == 0) {
        Barrier::arrive_and_expect_tx(full, 2 * split.rows() * split.stage_depth);
        cute::SM90_TMA_LOAD_5D::copy(&maps.whole[split.log_groups], full, kOnce, shared.weights[stage.index],
                                     0, row, 0, k * (split.stage_depth / 64), piece.entry.place);
      }
    } else {
      const int column = k * split.stage_depth + along * 64;
      const bool mine = lane < 2 * kWarps && along * 64 < split.stage_depth && column < split.depth;
      const int boxes = __popc(__ballot_sync(0xffffffffu, mine));
      if (lane == 0) Barrier::arrive_and_expect_tx(full, boxes * kBox);
      __syncwarp();
      if (mine)
        cute::SM90_TMA_LOAD_5D::copy(&maps.pieces, full, kOnce, shared.weights[stage.index] + lane * kBox,
                                     column, row + (gated ? 0 : half * (split.rows() / 2)) + group * 8,
                                     gated ? half : 0, 0, piece.entry.place);
    }
  }
}

// Takes tasks from the queue, the first of which `asked` for already, hands them to the other warps and
// streams their weights. It asks for the next as late as the answer allows: a block that holds tasks it has
// not begun is the last to end.
__device__ __forceinline__ void load_weights(const Params& p, Shared& shared, const TaskList& tasks,
                                             unsigned asked, int lane) {
  RingPosition stage;
  Ring<kTaskSlots> slot;
  const auto hand_out = [&](int id) {
    Barrier::wait(&shared.task_empty[slot.index], slot.phase ^ 1);
    if (lane == 0) {
      shared.tasks[slot.index] = id;
      Barrier::arrive(&shared.task_full[slot.index]);
    }
    slot.advance();
  };
  const auto ask_next = [&] {
    if (lane == 0) asked = ask(*p.counters);
  };
  for (int id; (id = __shfl_sync(0xffffffffu, asked, 0)) < tasks.size();) {
    hand_out(id);
    if (tasks.is_product(id))
      tasks.for_each_piece(
          id, [&](const Piece& piece) { load_piece(p, shared, tasks, piece, stage, lane, ask_next); });
    else
      ask_next();
  }
  for (int id = tasks.size() + blockIdx.x; id < tasks.end(); id += gridDim.x) {
    hand_out(id);
    tasks.for_each_piece(
        id, [&](const Piece& piece) { load_piece(p, shared, tasks, piece, stage, lane, [] {}); });
  }
  hand_out(kNoMoreTasks);
}

// The rows of x, or of the first product, that come along.
__device__ __forceinline__ void load_rows(const Params& p, Shared& shared, const TaskList& tasks, int lane) {
  const RowStages& stages = tasks.row_stages;
  RingPosition stage;
  Ring<kTaskSlots> slot;
  int ready = 0;  // entries whose activated rows are known to be there
  for (int id; (id = take_task(shared, slot, lane)) != kNoMoreTasks; slot.advance())
    tasks.for_each_piece(id, [&](const Piece& piece) {
      if (piece.down && piece.entry_index >= ready)
        ready = tasks.wait_for_first_product(piece.entry_index, lane);
      const Split split = tasks.split_of(piece.down);
      const int pitch = stages.pitch(split.row_depth);
#pragma unroll 1
      for (int column = 0; column < split.depth; column += split.row_depth, stage.advance(stages.count)) {
        const int bytes = 2 * min(split.row_depth, split.depth - column);
        Barrier::wait(&shared.rows_empty[stage.index], stage.phase ^ 1);
        uint64_t* full = &shared.rows_full[stage.index];
        if (lane == 0) Barrier::arrive_and_expect_tx(full, bytes * piece.entry.count);
        __syncwarp();
#pragma unroll 1
        for (int i = lane; i < piece.entry.count; i += 32) {
          const int row = piece.entry.begin + i;
          const bf16* from = piece.down ? p.activated + long(row) * p.expert_width
                                        : p.x + shared.plan.token_of[row] * p.x_stride;
          asm volatile(
              "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                  cute::cast_smem_ptr_to_uint(shared.rows) + stage.index * stages.bytes + i * pitch),
              "l"(from + column), "r"(bytes), "r"(cute::cast_smem_ptr_to_uint(full))
              : "memory");
        }
      }
    });
  if (lane == 0 && tasks.leaves_with_rows()) leave(*p.counters);
}

}  // namespace motley::cuda::sm90::decode
