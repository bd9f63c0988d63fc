// The thread and the warp of the decode kernel that load.
#pragma once

#include <cute/arch/copy_sm90_tma.hpp>

#include "motley/kernels/cuda/sm90/decode_tasks.cuh"

namespace motley::cuda::sm90::decode {

// The thread that streams weights takes tasks from the queue, the first of which it asked for already, and
// hands them to the warps. It asks for the next as late as the answer allows: a block that holds tasks it has
// not begun is the last to end.
class WeightLoader {
 public:
  __device__ WeightLoader(const Params& p, Shared& shared, const TaskList& tasks)
      : p_(p), shared_(shared), tasks_(tasks) {}

  __device__ __forceinline__ void run(unsigned asked) {
    const auto ask_next = [&] { asked = ask(*p_.counters); };
    while (int(asked) < tasks_.size()) {
      const int id = asked;
      hand_out(id);
      if (tasks_.is_product(id))
        load(tasks_.piece(id), ask_next);
      else
        ask_next();
    }
    for (int id = tasks_.size() + blockIdx.x; id < tasks_.end(); id += gridDim.x) {
      hand_out(id);
      tasks_.for_each_piece(id, [&](const Piece& piece) { load(piece, [] {}); });
    }
    hand_out(kNoMoreTasks);
  }

 private:
  __device__ void hand_out(int id) {
    Barrier::wait(&shared_.task_empty[slot_.index], slot_.phase ^ 1);
    shared_.tasks[slot_.index] = id;
    Barrier::arrive(&shared_.task_full[slot_.index]);
    slot_.advance();
  }

  // Calls ask_next where kAskBefore stages are left, or at the first of fewer.
  template <class AskNext>
  __device__ __forceinline__ void load(const Piece& piece, const AskNext& ask_next) {
    constexpr uint64_t kOnce = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_FIRST);
    const Split split = tasks_.split_of(piece.down);
    const WeightMaps& maps = piece.down ? p_.down : p_.up;
    const bool gated = !piece.down && p_.activation.gated(), whole = split.depth % 64 == 0;
    const int row = piece.tile * (gated ? split.rows() / 2 : split.rows());
#pragma unroll 1
    for (int k = 0; k < split.stages; ++k, stage_.advance()) {
      if (k == max(0, split.stages - kAskBefore)) ask_next();
      Barrier::wait(&shared_.weights_empty[stage_.index], stage_.phase ^ 1);
      uint64_t* full = &shared_.weights_full[stage_.index];
      unsigned char* to = shared_.weights[stage_.index];
      if (whole) {
        Barrier::arrive_and_expect_tx(full, 2 * split.rows() * split.stage_depth);
        cute::SM90_TMA_LOAD_5D::copy(&maps.whole[split.log_groups], full, kOnce, to, 0, row, 0,
                                     k * (split.stage_depth / 64), piece.entry.place);
        continue;
      }
      const int begin = k * split.stage_depth, end = min(begin + split.stage_depth, split.depth);
      Barrier::arrive_and_expect_tx(full, (end - begin + 63) / 64 * 2 * split.groups() * kBox);
#pragma unroll 1
      for (int column = begin; column < end; column += 64)
#pragma unroll 1
        for (int half = 0; half < 2; ++half)
#pragma unroll 1
          for (int group = 0; group < split.groups(); ++group, to += kBox)
            cute::SM90_TMA_LOAD_5D::copy(&maps.pieces, full, kOnce, to, column,
                                         row + (gated ? 0 : half * (split.rows() / 2)) + group * 8,
                                         gated ? half : 0, 0, piece.entry.place);
    }
  }

  const Params& p_;
  Shared& shared_;
  const TaskList& tasks_;
  Ring<kStages> stage_;
  Ring<kTaskSlots> slot_;
};

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
