// The warp of the decode kernel that finishes tasks, and the one that says what is done.
#pragma once

#include "motley/kernels/cuda/sm90/decode_multiply.cuh"

namespace motley::cuda::sm90::decode {

// The sums of a piece over the warps along K, stored; a lane takes pairs of tokens that are there. A warp's
// sums lie at its number, which is along * groups + group.
__device__ inline void finish_piece(const Params& p, const TaskList& tasks, const Piece& piece,
                                    const float* partial, int lane) {
  const Split split = tasks.split_of(piece.down);
  int log_pairs = 0;
  while (2 << log_pairs < piece.entry.count) ++log_pairs;
#pragma unroll 1
  for (int i = lane; i < split.groups() << (3 + log_pairs); i += 32) {
    const int pair = i & ((1 << log_pairs) - 1), row = i >> log_pairs & 7, group = i >> (log_pairs + 3);
    const float4* from = reinterpret_cast<const float4*>(partial) +
                         (group * tasks.token_tiles + pair / 4) * 32 + row * 4 + pair % 4;
    const int step = split.groups() * tasks.token_tiles * 32;
    float sum[1][4] = {};
#pragma unroll
    for (int along = 0; along < kWarps; ++along)
      if (along < split.num_along()) {
        const float4 one = from[along * step];
        sum[0][0] += one.x, sum[0][1] += one.y, sum[0][2] += one.z, sum[0][3] += one.w;
      }
    store_pairs(p, piece, split, group, row, pair, sum);
  }
}

// Of the token of a task with_sum: which of the task's pieces each choice is, -1 without one, and its weight.
// Asks memory before the products are there, because an answer takes as long as two pieces.
struct SummedChoices {
  int piece[kMaxSummedChoices];
  float weight[kMaxSummedChoices];
  int piece_of_lane, place_of_lane;  // of choice `lane`

  __device__ SummedChoices(const Params& p, const DecodePlan& plan, int token, int lane) {
    const bool chosen = lane < p.top_k;
    const int row = chosen ? plan.row_of[token * p.top_k + lane] : -1;
    const float weight_of_lane = chosen ? p.gate_weights[token * p.top_k + lane] : 0.f;
    place_of_lane = row >= 0 ? plan.entries[row].place : 0;
    int before = 0;  // pieces come in the order of their rows
    for (int other = 0; other < p.top_k; ++other) {
      const int theirs = __shfl_sync(0xffffffffu, row, other);
      before += theirs >= 0 && theirs < row;
    }
    piece_of_lane = row >= 0 ? before : -1;
#pragma unroll
    for (int i = 0; i < kMaxSummedChoices; ++i) {
      piece[i] = __shfl_sync(0xffffffffu, piece_of_lane, i);
      weight[i] = __shfl_sync(0xffffffffu, weight_of_lane, i);
    }
  }
};

// Columns of a token from its experts' rows, as sum_tokens gives them: 16 at a time, four of a choice a lane,
// then one a lane of all choices. `partial` holds the sums of the pieces by warp along K, and is overwritten.
__device__ inline void sum_pieces(const Params& p, const DecodePlan& plan, const TaskList& tasks, int id,
                                  const SummedChoices& choices, float* partial, int lane) {
  constexpr unsigned kAll = 0xffffffffu;
  constexpr int kTogether = 8, kColumns = 16;  // choices and columns at a time
  const Split split = tasks.down;
  const int first = tasks.tile_of(id) * split.rows();
#pragma unroll 1
  for (int begin = 0; begin < split.rows(); begin += kColumns) {
    const int mine = begin + lane % 4 * 4;
#pragma unroll 1
    for (int from = 0; from < p.top_k; from += kTogether) {
      const int piece = __shfl_sync(kAll, choices.piece_of_lane, from + lane / 4),
                place = __shfl_sync(kAll, choices.place_of_lane, from + lane / 4);
      if (piece < 0) continue;
      float4* part = reinterpret_cast<float4*>(partial + kPieceSums * piece + mine);
      float4 value = {};
#pragma unroll
      for (int along = 0; along < kWarps; ++along)
        if (along < split.num_along()) {
          const float4 one = part[along * split.rows() / 4];
          value.x += one.x, value.y += one.y, value.z += one.z, value.w += one.w;
        }
      if (p.down_bias && first + mine < p.model_width) {
        const bf16* bias = p.down_bias + place * p.down_bias_stride + first + mine;
        value.x += __bfloat162float(bias[0]), value.y += __bfloat162float(bias[1]);
        value.z += __bfloat162float(bias[2]), value.w += __bfloat162float(bias[3]);
      }
      *part = value;
    }
    __syncwarp();
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < kMaxSummedChoices; ++i)
      if (choices.piece[i] >= 0) {
        const float value = partial[kPieceSums * choices.piece[i] + begin + lane % kColumns];
        sum += choices.weight[i] * __bfloat162float(__float2bfloat16(value));
      }
    float sums[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) sums[j] = __shfl_sync(kAll, sum, lane % 2 * 8 + j);
    const int to = first + begin + lane * 8;
    if (lane < 2 && to < p.model_width) finish_token(p, plan, tasks.token_of(id), to, sums);
  }
}

// Finishes what the warps that multiply hand over, while they go on: a stage given back late by one of them
// would hold up all.
__device__ inline void finish(const Params& p, Shared& shared, const TaskList& tasks, int lane) {
  RingPosition partial;
  for (Ring<kTaskSlots> slot;; slot.advance()) {
    const int id = take_task(shared, slot, lane);
    if (id == kNoMoreTasks) return;
    if (!tasks.hands_over(id)) continue;
    float* sums = partial_sums(shared, tasks, partial);
    const auto wait = [&] {
      Barrier::wait(&shared.partial_full[partial.index], partial.phase);
      __syncwarp();
    };
    if (tasks.with_sum(id)) {
      const SummedChoices choices(p, shared.plan, tasks.token_of(id), lane);
      wait();
      sum_pieces(p, shared.plan, tasks, id, choices, sums, lane);
    } else {
      const Piece piece = tasks.piece(id);
      wait();
      finish_piece(p, tasks, piece, sums, lane);
    }
    Barrier::arrive(&shared.partial_empty[partial.index]);
    partial.advance(tasks.num_partials());
    __syncwarp();
    if (lane < kWarps && !tasks.with_sum(id)) Barrier::arrive(&shared.task_done[slot.index]);
  }
}

// Tells other blocks what this one has written. A fence takes as long as a small task: one for all tasks that
// have been finished since the last.
__device__ inline void announce(const Params& p, Shared& shared, const TaskList& tasks, int lane) {
  constexpr int kUnfinished = -2;
  for (unsigned base = 0;;) {
    const unsigned at = base + lane, slot = at % kTaskSlots, phase = at / kTaskSlots % 2;
    int id = kUnfinished;
    if (lane < kTaskSlots && Barrier::test_wait(&shared.task_done[slot], phase, 1)) id = shared.tasks[slot];
    const int count = __ffs(~__ballot_sync(0xffffffffu, id >= 0)) - 1;
    if (count == 0) {
      if (__shfl_sync(0xffffffffu, id, 0) == kNoMoreTasks) break;
      continue;
    }
    if (__any_sync(0xffffffffu, lane < count && tasks.is_counted(id))) {
      // Other blocks read rows of the first product by bulk copies.
      asm volatile("fence.proxy.async.global;" ::: "memory");
      fence_gpu();
    }
    if (lane < count) {
      tasks.count_done(id);
      Barrier::arrive(&shared.task_empty[slot]);
    }
    base += count;
  }
  if (lane == 0 && !tasks.leaves_with_rows()) leave(*p.counters);
}

}  // namespace motley::cuda::sm90::decode
