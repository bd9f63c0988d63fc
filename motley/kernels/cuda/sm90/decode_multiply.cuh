// The eight warps of the decode kernel that multiply and add up, and the one that says what is done.
#pragma once

#include "motley/kernels/cuda/sm90/decode_tasks.cuh"

namespace motley::cuda::sm90::decode {

// The first row of weights of half `half` of row group `group`: gate and up rows of the same columns, or
// the first and the last R / 2 rows of the tile.
template <class S>
__device__ int first_row(const Params& p, const Task& task, int group, int half) {
  if (!task.down && p.activation.gated())
    return half * p.expert_width + task.tile * (S::kRows / 2) + group * 8;
  return task.tile * S::kRows + half * (S::kRows / 2) + group * 8;
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

// A sub-tile of 16 rows of weights x 64 of K times all tokens. `valid` of the 64 are there; the rest of the
// rows is what was there before, maybe NaN, and must not be multiplied even with zeros.
template <class S, int kTokenTiles>
__device__ void multiply_piece(float (&sum)[kTokenTiles][4], uint32_t weights, uint32_t rows, int valid,
                               int lane) {
  const int row = lane % 8, half = lane / 8 % 2, upper = lane / 16;
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {  // of steps of 16
    if (pair * 32 >= valid) break;
    uint32_t a[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      load_matrices(a[i], weights + half * (S::kRowGroups * kBox) + row * 128 +
                              (((pair * 2 + i) * 2 + upper) ^ row) * 16);
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      uint32_t b[4];
      load_matrices(b, rows + (t * 8 + row) * S::kRowStride + pair * 64 + lane / 8 * 16);
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
__device__ void store(const Params& p, const Task& task, int row_of_half[2],
                      const float (&sum)[kTokenTiles][4], int lane) {
  const int width = task.down ? p.model_width : p.expert_width;
  const bf16* bias = task.down ? p.down_bias : p.up_bias;
  if (bias) bias += task.entry.place * (task.down ? p.down_bias_stride : p.up_bias_stride);
  const bool gated = !task.down && p.activation.gated();
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
      if (token >= task.entry.count) continue;
      const long row = task.entry.begin + token;
      // Rounded where the layer for many tokens rounds.
      const float first = __bfloat162float(__float2bfloat16(sum[t][i] + added[0])),
                  second = __bfloat162float(__float2bfloat16(sum[t][2 + i] + added[1]));
      if (task.down) {
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

template <int kTokenTiles>
__device__ void multiply(const Params& p, Shared& shared, int warp, int lane) {
  using S = Sizes<kTokenTiles>;
  const TaskList<S> tasks(p, shared.plan);
  const int group = warp % S::kRowGroups, along = warp / S::kRowGroups;
  Ring<kStages> stage;
  Ring<S::kRowStages> row_stage;
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
    const Task task = tasks.product(id);
    float sum[kTokenTiles][4] = {};
    for (int k = 0; k < task.k_blocks; ++k, stage.advance()) {
      const int valid = task.depth - k * S::kDepth - along * 64;
      const int part = k * S::kDepth % S::kRowDepth;  // of the rows' stage
      Barrier::wait(&shared.weights_full[stage.index], stage.phase);
      Barrier::wait(&shared.rows_full[row_stage.index], row_stage.phase);
      if (valid > 0)
        multiply_piece<S>(sum,
                          cute::cast_smem_ptr_to_uint(shared.weights[stage.index]) +
                              (along * 2 * S::kRowGroups + group) * kBox,
                          cute::cast_smem_ptr_to_uint(shared.rows) + row_stage.index * S::kRowStageBytes +
                              2 * part + along * 128,
                          valid, lane);
      __syncwarp();
      if (lane == 0) Barrier::arrive(&shared.weights_empty[stage.index]);
      if (part + S::kDepth < S::kRowDepth && k + 1 < task.k_blocks) continue;
      if (lane == 0) Barrier::arrive(&shared.rows_empty[row_stage.index]);
      row_stage.advance();
    }
    if constexpr (S::kDepthGroups > 1) {
      float4* partial = reinterpret_cast<float4*>(shared.partial[buffer]);
      buffer ^= 1;
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t)
        if (along > 0)
          partial[(((along - 1) * S::kRowGroups + group) * kTokenTiles + t) * 32 + lane] = {
              sum[t][0], sum[t][1], sum[t][2], sum[t][3]};
      join();
      if (along > 0) {
        done(slot);
        continue;
      }
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t)
        for (int from = 0; from < S::kDepthGroups - 1; ++from) {
          const float4 other = partial[((from * S::kRowGroups + group) * kTokenTiles + t) * 32 + lane];
          sum[t][0] += other.x, sum[t][1] += other.y, sum[t][2] += other.z, sum[t][3] += other.w;
        }
    }
    int rows[2] = {first_row<S>(p, task, group, 0), first_row<S>(p, task, group, 1)};
    store<kTokenTiles>(p, task, rows, sum, lane);
    done(slot);
  }
}

// Tells other blocks what this one has written. A fence takes as long as a small task: one for all tasks that
// have been finished since the last.
template <class S>
__device__ void announce(const Params& p, Shared& shared, int lane) {
  constexpr int kUnfinished = -2;
  const TaskList<S> tasks(p, shared.plan);
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
  if (lane > 0) return;
  fence_gpu();
  if (atomicAdd(&p.counters->blocks_done, 1u) == gridDim.x - 1) {
    fence_gpu();
    *p.counters = {};
  }
}

}  // namespace motley::cuda::sm90::decode
