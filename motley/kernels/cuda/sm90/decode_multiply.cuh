// The eight warps of the decode kernel that multiply and add up, and the one that says what is done.
#pragma once

#include "motley/kernels/cuda/sm90/decode_tasks.cuh"

namespace motley::cuda::sm90::decode {

// The first row of weights of half `half` of row group `group`: gate and up rows of the same columns, or
// the first and the last half of the tile's rows.
__device__ int first_row(const Params& p, const Split& split, const Piece& piece, int group, int half) {
  if (!piece.down && p.activation.gated())
    return half * p.expert_width + piece.tile * (split.rows() / 2) + group * 8;
  return piece.tile * split.rows() + half * (split.rows() / 2) + group * 8;
}

__device__ void load_matrices(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

__device__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, "
      "%1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A sub-tile of 16 rows of weights x 64 of K times all tokens, whose rows lie at rows + row_offset (the
// lane's). `valid` of the 64 are there; the rest of the rows is what was there before, maybe NaN, and must
// not be multiplied even with zeros.
template <int kTokenTiles>
__device__ void multiply_sub_tile(float (&sum)[kTokenTiles][4], uint32_t weights, int half_bytes,
                                  uint32_t rows, const int (&row_offset)[kTokenTiles], int valid, int lane) {
  const int row = lane % 8, half = lane / 8 % 2, upper = lane / 16;
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {  // of steps of 16
    if (pair * 32 >= valid) break;
    uint32_t a[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      load_matrices(a[i],
                    weights + half * half_bytes + row * 128 + (((pair * 2 + i) * 2 + upper) ^ row) * 16);
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      uint32_t b[4];
      load_matrices(b, rows + row_offset[t] + pair * 64);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (pair * 32 + i * 8 >= valid) b[i] = 0;
      multiply_add(sum[t], a[0], b[0], b[1]);
      multiply_add(sum[t], a[1], b[2], b[3]);
    }
  }
}

// What a task leaves: activated columns, or columns of the output rows.
template <int kTokenTiles>
__device__ void store(const Params& p, const Piece& piece, int row_of_half[2],
                      const float (&sum)[kTokenTiles][4], int lane) {
  const int width = piece.down ? p.model_width : p.expert_width;
  const bf16* bias = piece.down ? p.down_bias : p.up_bias;
  if (bias) bias += piece.entry.place * (piece.down ? p.down_bias_stride : p.up_bias_stride);
  const bool gated = !piece.down && p.activation.gated();
  const int at[2] = {row_of_half[0] + lane / 4, row_of_half[1] + lane / 4};
  float added[2] = {0.f, 0.f};
  if (bias)
    for (int half = 0; half < 2; ++half)
      if (at[half] < (gated ? 2 * width : width)) added[half] = __bfloat162float(bias[at[half]]);
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = t * 8 + lane % 4 * 2 + i;
      if (token >= piece.entry.count) continue;
      const long row = piece.entry.begin + token;
      // Rounded where the layer for many tokens rounds.
      const float first = __bfloat162float(__float2bfloat16(sum[t][i] + added[0])),
                  second = __bfloat162float(__float2bfloat16(sum[t][2 + i] + added[1]));
      if (piece.down) {
        if (at[0] < width) p.rows[row * width + at[0]] = __float2bfloat16(first);
        if (at[1] < width) p.rows[row * width + at[1]] = __float2bfloat16(second);
      } else {
        with_kind(p.activation.kind, [&]<ActivationKind kind>() {
          if (at[0] < width)
            p.activated[row * width + at[0]] = __float2bfloat16(activate<kind>(p.activation, first, second));
          if constexpr (!is_gated(kind))
            if (at[1] < width)
              p.activated[row * width + at[1]] = __float2bfloat16(activate<kind>(p.activation, second, 0.f));
        });
      }
    }
}

// The warps that multiply wait for each other.
__device__ void join() { cutlass::arch::NamedBarrier::arrive_and_wait(32 * kWarps, 0); }

// The products of one piece, by the warps along K in parts.
template <int kTokenTiles>
__device__ __forceinline__ void multiply_piece(const Params& p, Shared& shared, const TaskList& tasks,
                                               const Split& split, const Piece& piece, RingPosition& stage,
                                               RingPosition& row_stage, int warp, int lane,
                                               float (&sum)[kTokenTiles][4]) {
  const RowStages& row_stages = tasks.row_stages;
  const int group = split.group(warp), along = split.along(warp);
  const int half_bytes = split.groups() * kBox, pitch = row_stages.pitch(split.row_depth);
  int row_offset[kTokenTiles];  // past the last row another one is multiplied, and never stored
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t)
    row_offset[t] = min(t * 8 + lane % 8, piece.entry.count - 1) * pitch + lane / 8 * 16;
  int part = 0;  // of the rows' stage
  for (int k = 0; k < split.stages; ++k, stage.advance(tasks.weight_stages())) {
    const int valid = along * 64 < split.stage_depth ? split.depth - k * split.stage_depth - along * 64 : 0;
    Barrier::wait(&shared.weights_full[stage.index], stage.phase);
    if (part == 0) Barrier::wait(&shared.rows_full[row_stage.index], row_stage.phase);
    if (valid > 0)
      multiply_sub_tile(sum,
                        cute::cast_smem_ptr_to_uint(shared.weights[stage.index]) +
                            (along * 2 * split.groups() + group) * kBox,
                        half_bytes,
                        cute::cast_smem_ptr_to_uint(shared.rows) + row_stage.index * row_stages.bytes +
                            2 * part + along * 128,
                        row_offset, valid, lane);
    __syncwarp();
    if (lane == 0) Barrier::arrive(&shared.weights_empty[stage.index]);
    part += split.stage_depth;
    if (part < split.row_depth && k + 1 < split.stages) continue;
    Barrier::arrive(&shared.rows_empty[row_stage.index]);  // every lane: racecheck knows no order else
    row_stage.advance(row_stages.count);
    part = 0;
  }
}

// 16 columns of a token from its experts' rows, as sum_tokens gives them. `partial` holds the sums of its
// pieces, by warp along K; `weight` is the gate weight of choice `lane`.
__device__ inline void sum_pieces(const Params& p, const DecodePlan& plan, const TaskList& tasks, int id,
                                  const float* partial, float weight, int group, int lane) {
  constexpr unsigned kAll = 0xffffffffu;
  const Split& split = tasks.down;
  const int token = tasks.token_of(id), first = tasks.tile_of(id) * split.rows();
  const int in_tile = lane / 8 % 2 * (split.rows() / 2) + group * 8 + lane % 8, column = first + in_tile;
  const int row = lane < p.top_k ? plan.row_of[token * p.top_k + lane] : -1;
  float sum = 0.f;
  for (int choice = 0; choice < p.top_k; ++choice) {
    const int of_choice = __shfl_sync(kAll, row, choice);
    if (of_choice < 0) continue;
    // Pieces come in the order of their rows.
    const float* part =
        partial + kPieceSums * __popc(__ballot_sync(kAll, row >= 0 && row < of_choice)) + in_tile;
    float value = part[0], added = 0.f;
    for (int along = 1; along < kWarps >> split.log_groups; ++along) value += part[along * split.rows()];
    if (p.down_bias && column < p.model_width)
      added = __bfloat162float(p.down_bias[plan.entries[of_choice].place * p.down_bias_stride + column]);
    sum += __shfl_sync(kAll, weight, choice) * __bfloat162float(__float2bfloat16(value + added));
  }
  float sums[8];
#pragma unroll
  for (int j = 0; j < 8; ++j) sums[j] = __shfl_sync(kAll, sum, lane % 2 * 8 + j);
  const int to = first + lane * (split.rows() / 2) + group * 8;
  if (lane < 2 && to < p.model_width) finish_token(p, plan, token, to, sums);
}

template <int kTokenTiles>
__device__ void multiply(const Params& p, Shared& shared, const TaskList& tasks, int warp, int lane) {
  RingPosition stage, row_stage;
  int buffer = 0;
  const auto done = [&](const Ring<kTaskSlots>& slot) {
    __syncwarp();
    if (lane == 0) Barrier::arrive(&shared.task_done[slot.index]);
  };
  for (Ring<kTaskSlots> slot;; slot.advance()) {
    const int id = take_task(shared, slot, lane);
    if (id == kNoMoreTasks) {
      done(slot);
      return;
    }
    if (!tasks.is_product(id)) {
      if (lane == 0) tasks.wait_for_second_product(), wait_for_mixes(p);
      __syncwarp();
      done(slot);  // with the counters
      sum_tokens(p, shared.plan, tasks.sum_index(id), warp * 32 + lane);
      continue;
    }
    if constexpr (kTokenTiles == 1)
      if (tasks.with_sum(id)) {
        const Split split = tasks.down;
        const int group = split.group(warp), along = split.along(warp);
        float* partial = shared.partial[buffer];
        // On its way while the pieces are: an answer of memory takes as long as two of them.
        const float weight = lane < p.top_k ? p.gate_weights[tasks.token_of(id) * p.top_k + lane] : 0.f;
        float* to = partial + along * split.rows() + group * 8 + lane / 4;
        buffer ^= 1;
        tasks.for_each_piece(id, [&](const Piece& piece) {
          float sum[1][4] = {};
          multiply_piece(p, shared, tasks, split, piece, stage, row_stage, warp, lane, sum);
          if (lane % 4 == 0) to[0] = sum[0][0], to[split.rows() / 2] = sum[0][2];
          to += kPieceSums;
        });
        if (lane == 0) wait_for_mixes(p);
        join();
        if (along == 0) sum_pieces(p, shared.plan, tasks, id, partial, weight, group, lane);
        done(slot);
        continue;
      }
    tasks.for_each_piece(id, [&](const Piece& piece) {
      const Split split = tasks.split_of(piece.down);
      const int group = split.group(warp), along = split.along(warp);
      float sum[kTokenTiles][4] = {};
      multiply_piece(p, shared, tasks, split, piece, stage, row_stage, warp, lane, sum);
      if (split.log_groups < 3) {
        float4* partial = reinterpret_cast<float4*>(shared.partial[buffer]);
        buffer ^= 1;
        const auto at = [&](int from, int t) {
          return (((from - 1) * split.groups() + group) * kTokenTiles + t) * 32 + lane;
        };
        if (along > 0)
#pragma unroll
          for (int t = 0; t < kTokenTiles; ++t)
            partial[at(along, t)] = {sum[t][0], sum[t][1], sum[t][2], sum[t][3]};
        join();
        if (along > 0) return;
#pragma unroll
        for (int t = 0; t < kTokenTiles; ++t)
          for (int from = 1; from < kWarps >> split.log_groups; ++from) {
            const float4 other = partial[at(from, t)];
            sum[t][0] += other.x, sum[t][1] += other.y, sum[t][2] += other.z, sum[t][3] += other.w;
          }
      }
      int rows[2] = {first_row(p, split, piece, group, 0), first_row(p, split, piece, group, 1)};
      store<kTokenTiles>(p, piece, rows, sum, lane);
    });
    done(slot);
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
    // Other blocks read rows of the first product by bulk copies.
    asm volatile("fence.proxy.async.global;" ::: "memory");
    fence_gpu();
    if (lane < count) {
      tasks.count_done(id);
      Barrier::arrive(&shared.task_empty[slot]);
    }
    base += count;
  }
  if (lane == 0 && !tasks.leaves_with_rows()) leave(*p.counters);
}

}  // namespace motley::cuda::sm90::decode
