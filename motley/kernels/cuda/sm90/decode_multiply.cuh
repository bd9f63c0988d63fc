// The eight warps of the decode kernel that multiply.
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
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A sub-tile of 16 rows of weights x 64 of K times all tokens, whose rows lie at rows + row_offset (the
// lane's). `valid` of the 64 are there; the rest of the rows is what was there before, maybe NaN, and must
// not be multiplied even with zeros.
template <int kTokenTiles>
__device__ __forceinline__ void multiply_sub_tile(float (&sum)[kTokenTiles][4], uint32_t weights,
                                                  int half_bytes, uint32_t rows,
                                                  const int (&row_offset)[kTokenTiles], int valid, int lane) {
  const int row = lane % 8, half = lane / 8 % 2, upper = lane / 16;
  const uint32_t from = weights + half * half_bytes + row * 128;
  uint32_t a[2][2][4], b[2][kTokenTiles][4];
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {  // of steps of 16
#pragma unroll
    for (int i = 0; i < 2; ++i) load_matrices(a[pair][i], from + (((pair * 2 + i) * 2 + upper) ^ row) * 16);
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      load_matrices(b[pair][t], rows + row_offset[t] + pair * 64);
      if (valid < 64)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (pair * 32 + i * 8 >= valid) b[pair][t][i] = 0;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t)
      multiply_add(sum[t], a[i / 2][i % 2], b[i / 2][t][i % 2 * 2], b[i / 2][t][i % 2 * 2 + 1]);
}

// What a task leaves in a row of weights of each half of a row group: activated columns, or columns of the
// output rows. Of kPairs pairs of tokens, the first of which is `pair` and the others 4 apart: sums of the
// first half and of the second.
template <int kPairs>
__device__ __forceinline__ void store_pairs(const Params& p, const Piece& piece, const Split& split,
                                            int group, int row, int pair, const float (&sum)[kPairs][4]) {
  const int width = piece.down ? p.model_width : p.expert_width;
  const bf16* bias = piece.down ? p.down_bias : p.up_bias;
  const bool gated = !piece.down && p.activation.gated();
  const int at[2] = {first_row(p, split, piece, group, 0) + row, first_row(p, split, piece, group, 1) + row};
  float added[2] = {0.f, 0.f};
  if (bias) {
    bias += piece.entry.place * (piece.down ? p.down_bias_stride : p.up_bias_stride);
    for (int half = 0; half < 2; ++half)
      if (at[half] < (gated ? 2 * width : width)) added[half] = __bfloat162float(bias[at[half]]);
  }
  const auto each = [&](const auto& store_two) {
#pragma unroll
    for (int t = 0; t < kPairs; ++t)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int token = (pair + 4 * t) * 2 + i;
        if (token < piece.entry.count)  // rounded where the layer for many tokens rounds
          store_two(long(piece.entry.begin + token) * width,
                    __bfloat162float(__float2bfloat16(sum[t][i] + added[0])),
                    __bfloat162float(__float2bfloat16(sum[t][2 + i] + added[1])));
      }
  };
  if (piece.down)
    each([&](long to, float first, float second) {
      if (at[0] < width) p.rows[to + at[0]] = __float2bfloat16(first);
      if (at[1] < width) p.rows[to + at[1]] = __float2bfloat16(second);
    });
  else
    with_kind(p.activation.kind, [&]<ActivationKind kind>() {
      each([&](long to, float first, float second) {
        if (at[0] < width)
          p.activated[to + at[0]] = __float2bfloat16(activate<kind>(p.activation, first, second));
        if constexpr (!is_gated(kind))
          if (at[1] < width)
            p.activated[to + at[1]] = __float2bfloat16(activate<kind>(p.activation, second, 0.f));
      });
    });
}

// Where a warp that multiplies stands in the rings.
struct Reader {
  Ring<kStages> stage;
  RingPosition row_stage;
};

// The products of one piece, by the warps along K in parts.
template <int kTokenTiles>
__device__ __forceinline__ void multiply_piece(Shared& shared, const TaskList& tasks, const Split& split,
                                               const Piece& piece, Reader& reader, int warp, int lane,
                                               float (&sum)[kTokenTiles][4]) {
  auto& [stage, row_stage] = reader;
  const RowStages& row_stages = tasks.row_stages;
  const int group = split.group(warp), along = split.along(warp);
  const int half_bytes = split.groups() * kBox, pitch = row_stages.pitch(split.row_depth);
  int row_offset[kTokenTiles];  // past the last row another one is multiplied, and never stored
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t)
    row_offset[t] = min(t * 8 + lane % 8, piece.entry.count - 1) * pitch + lane / 8 * 16;
  int part = 0;  // of the rows' stage
  for (int k = 0; k < split.stages; ++k, stage.advance()) {
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

__device__ inline float* partial_sums(Shared& shared, const TaskList& tasks, const RingPosition& partial) {
  return shared.partial + partial.index * (kPartial / tasks.num_partials());
}

template <int kTokenTiles>
__device__ void multiply(const Params& p, Shared& shared, const TaskList& tasks, int warp, int lane) {
  Reader reader;
  RingPosition partial;
  const auto wait_for_partial = [&] {
    Barrier::wait(&shared.partial_empty[partial.index], partial.phase ^ 1);
    return partial_sums(shared, tasks, partial);
  };
  const auto hand_over = [&] {
    __syncwarp();
    Barrier::arrive(&shared.partial_full[partial.index]);
    partial.advance(tasks.num_partials());
  };
  for (Ring<kTaskSlots> slot;; slot.advance()) {
    const int id = take_task(shared, slot, lane);
    const auto done = [&] {
      __syncwarp();
      if (lane == 0) Barrier::arrive(&shared.task_done[slot.index]);
    };
    if (id == kNoMoreTasks) return done();
    if (!tasks.is_product(id)) {
      if (lane == 0) tasks.wait_for_second_product(), wait_for_mixes(p);
      done();  // with the counters
      sum_tokens(p, shared.plan, tasks.sum_index(id), warp * 32 + lane);
      continue;
    }
    if constexpr (kTokenTiles == 1)
      if (tasks.with_sum(id)) {
        if (lane == 0) wait_for_mixes(p);
        done();  // with the counters; no block waits for this task
        const Split& split = tasks.down;
        float* to = wait_for_partial() + split.along(warp) * split.rows() + split.group(warp) * 8 + lane / 4;
        tasks.for_each_piece(id, [&](const Piece& piece) {
          float sum[1][4] = {};
          multiply_piece(shared, tasks, split, piece, reader, warp, lane, sum);
          if (lane % 4 == 0) to[0] = sum[0][0], to[split.rows() / 2] = sum[0][2];
          to += kPieceSums;
        });
        hand_over();
        continue;
      }
    const Piece piece = tasks.piece(id);
    const Split split = tasks.split_of(piece.down);
    float sum[kTokenTiles][4] = {};
    multiply_piece(shared, tasks, split, piece, reader, warp, lane, sum);
    if (kTokenTiles < 8 && tasks.hands_over(id)) {
      float4* to = reinterpret_cast<float4*>(wait_for_partial()) + warp * kTokenTiles * 32 + lane;
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) to[t * 32] = {sum[t][0], sum[t][1], sum[t][2], sum[t][3]};
      hand_over();
    } else {
      store_pairs(p, piece, split, split.group(warp), lane / 4, lane % 4, sum);
      done();
    }
  }
}

}  // namespace motley::cuda::sm90::decode
