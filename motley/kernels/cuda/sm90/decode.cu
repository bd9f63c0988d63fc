// One persistent launch for the whole layer: up, activation, down and the weighted sum. Reading the weights
// is all that counts, so one warp streams them through a deep ring by TMA in the order of use and runs
// ahead over the barrier between the two products; rows are so few that they come along with each piece.
//
// A task is R = 16, 32, 64 or 128 rows of an expert's weights with all of K; a stage of the ring 8 sub-tiles
// of 16 x 64, one for each warp that multiplies: R / 16 of them down, the rest along K. The fewer rows of
// the plan an expert has, the smaller R (finer tasks balance better), since the rows that come along cost
// a stage 8 KiB at most either way. Sums along K are added over the warps in their order, and those of a
// token over its experts after a second barrier, so that nothing depends on timing.
#include <cutlass/arch/barrier.h>

#include <algorithm>
#include <cute/arch/copy_sm90_tma.hpp>

#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/sm90/decode_sum.cuh"
#include "motley/kernels/cuda/sm90/tensor_map.h"

namespace motley::cuda::sm90 {
namespace {

using Barrier = cutlass::arch::ClusterTransactionBarrier;

constexpr int kStages = 7, kWarps = kMultiplyingWarps;
constexpr int kBox = 8 * 128;  // bytes of 8 rows x 64 columns, the unit of the swizzle
constexpr int kWeightBytes = 2 * kWarps * kBox, kRowBytes = 4 * 64 * 272;
constexpr int kPartial = 64 * 32;  // floats: what the warps along K hand over, at most

struct alignas(1024) Shared {
  unsigned char weights[kStages][kWeightBytes];
  unsigned char rows[kRowBytes];
  float partial[2][kPartial];
  DecodePlan plan;
  unsigned before[2];  // the barriers of the grid at the beginning
  uint64_t weights_full[kStages], weights_empty[kStages], rows_full[kStages], rows_empty[kStages];
};
static_assert(sizeof(Shared) <= 227 * 1024);

// Weights of one product [P, 2, R / 2, 64 .. of K] as a stage takes them: whole (by the number of row groups:
// 1, 2, 4, 8), or where K is not divisible by 64 by pieces of 8 x 64.
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

// All blocks wait for each other after each product. A barrier is a word whose top bit turns over when the
// last of them arrives, so that nothing has to clear it. The words belong to one launch at a time: callers
// keep launches of a device apart (expert_layer.h), and blocks end after all have arrived.
__device__ unsigned barriers[2];

__device__ unsigned load_acquire(const unsigned* from) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
__device__ void arrive(int barrier) {
  atomicAdd(&barriers[barrier], blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u);
}
__device__ void wait(int barrier, unsigned before) {
  while (((load_acquire(&barriers[barrier]) ^ before) & 0x80000000u) == 0) {
  }
}

// One of the two products, with sizes that depend on how many rows an expert has.
struct Task {
  bool down;
  Entry entry;
  int tile, depth, k_blocks;
};

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

// Every role walks the same tasks: those of the first product expert by expert, those of the second by
// columns, so that sums per token begin early.
template <class S>
class Tasks {
 public:
  __device__ Tasks(const Params& p, const DecodePlan& plan)
      : p_(p),
        plan_(plan),
        up_tiles_((p.activation.gated() ? 2 * p.expert_width : p.expert_width) / S::kRows +
                  ((p.activation.gated() ? 2 * p.expert_width : p.expert_width) % S::kRows != 0)),
        num_up_(up_tiles_ * plan.num_entries),
        num_(num_up_ + (p.model_width + S::kRows - 1) / S::kRows * plan.num_entries),
        next_(blockIdx.x) {}
  __device__ bool valid() const { return next_ < num_; }
  __device__ void advance() { next_ += gridDim.x; }
  __device__ Task task() const {
    const bool down = next_ >= num_up_;
    const int index = down ? next_ - num_up_ : next_;
    const int entry = down ? index % plan_.num_entries : index / up_tiles_;
    const int depth = down ? p_.expert_width : p_.model_width;
    return {down, plan_.entries[entry], down ? index / plan_.num_entries : index % up_tiles_, depth,
            (depth + S::kDepth - 1) / S::kDepth};
  }

 private:
  const Params& p_;
  const DecodePlan& plan_;
  const int up_tiles_, num_up_, num_;
  int next_;
};

template <int kCount>
struct Stage {
  int index = 0;
  uint32_t phase = 0;
  __device__ void advance() {
    if (++index == kCount) index = 0, phase ^= 1;
  }
};

// The first row of weights of half `half` of row group `group`: gate and up rows of the same columns, or
// the first and the last R / 2 rows of the tile.
template <class S>
__device__ int first_row(const Params& p, const Task& task, int group, int half) {
  if (!task.down && p.activation.gated())
    return half * p.expert_width + task.tile * (S::kRows / 2) + group * 8;
  return task.tile * S::kRows + half * (S::kRows / 2) + group * 8;
}

template <class S>
__device__ void load_weights(const Params& p, Shared& shared, int lane) {
  constexpr int kWhole = S::kRowGroups == 8 ? 3 : S::kRowGroups / 2;
  constexpr uint64_t kOnce = static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_FIRST);
  Stage<kStages> stage;
  const int group = lane % S::kRowGroups, half = lane / S::kRowGroups % 2, along = lane / S::kRowGroups / 2;
  for (Tasks<S> tasks(p, shared.plan); tasks.valid(); tasks.advance()) {
    const Task task = tasks.task();
    const WeightMaps& maps = task.down ? p.down : p.up;
    const bool gated = !task.down && p.activation.gated(), whole = task.depth % 64 == 0;
    const int row = task.tile * (gated ? S::kRows / 2 : S::kRows);
    for (int k = 0; k < task.k_blocks; ++k, stage.advance()) {
      const int column = k * S::kDepth + along * 64;
      uint64_t* full = &shared.weights_full[stage.index];
      Barrier::wait(&shared.weights_empty[stage.index], stage.phase ^ 1);
      if (whole) {
        if (lane != 0) continue;
        Barrier::arrive_and_expect_tx(full, kWeightBytes);
        cute::SM90_TMA_LOAD_5D::copy(&maps.whole[kWhole], full, kOnce, shared.weights[stage.index], 0, row, 0,
                                     k * S::kDepthGroups, task.entry.place);
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
}

template <class S>
__device__ void load_rows(const Params& p, Shared& shared, int lane) {
  Stage<S::kRowStages> stage;
  bool waited = false;
  for (Tasks<S> tasks(p, shared.plan); tasks.valid(); tasks.advance()) {
    const Task task = tasks.task();
    if (task.down && !waited) {  // for the first product of all blocks
      wait(0, shared.before[0]);
      asm volatile("fence.proxy.async;" ::: "memory");
      waited = true;
    }
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

__device__ void arrive_first_product(int warp, int lane) {
  __threadfence();
  asm volatile("fence.proxy.async;" ::: "memory");
  join();
  if (warp == 0 && lane == 0) arrive(0);
}

template <int kTokenTiles>
__device__ void multiply(const Params& p, Shared& shared, int warp, int lane) {
  using S = Sizes<kTokenTiles>;
  const int group = warp % S::kRowGroups, along = warp / S::kRowGroups;
  Stage<kStages> stage;
  Stage<S::kRowStages> row_stage;
  bool arrived = false;
  int buffer = 0;
  for (Tasks<S> tasks(p, shared.plan); tasks.valid(); tasks.advance()) {
    const Task task = tasks.task();
    if (task.down && !arrived) {
      arrive_first_product(warp, lane);
      arrived = true;
    }
    float sum[kTokenTiles][4] = {};
    for (int k = 0; k < task.k_blocks; ++k, stage.advance()) {
      const int valid = task.depth - k * S::kDepth - along * 64;
      const int part = k * S::kDepth % S::kRowDepth;  // of the rows' stage
      Barrier::wait(&shared.weights_full[stage.index], stage.phase);
      if (part == 0) Barrier::wait(&shared.rows_full[row_stage.index], row_stage.phase);
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
      if (along > 0) continue;
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t)
        for (int from = 0; from < S::kDepthGroups - 1; ++from) {
          const float4 other = partial[((from * S::kRowGroups + group) * kTokenTiles + t) * 32 + lane];
          sum[t][0] += other.x, sum[t][1] += other.y, sum[t][2] += other.z, sum[t][3] += other.w;
        }
    }
    int rows[2] = {first_row<S>(p, task, group, 0), first_row<S>(p, task, group, 1)};
    store<kTokenTiles>(p, task, rows, sum, lane);
  }
  if (!arrived) arrive_first_product(warp, lane);
}

template <int kTokenTiles>
__device__ void run(const Params& p, Shared& shared, int warp, int lane) {
  if (warp < kWarps) {
    if (p.zero_experts.num_constant > 0) mix_constants(p, warp, lane);
    multiply<kTokenTiles>(p, shared, warp, lane);
  } else if (warp == kWarps) {
    load_weights<Sizes<kTokenTiles>>(p, shared, lane);
  } else {
    load_rows<Sizes<kTokenTiles>>(p, shared, lane);
  }
}

__global__ void __launch_bounds__(kDecodeThreads, 1) decode_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(1024) unsigned char shared_bytes[];
  Shared& shared = *reinterpret_cast<Shared*>(shared_bytes);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) shared.before[i] = load_acquire(&barriers[i]);
    for (int i = 0; i < kStages; ++i) {
      Barrier::init(&shared.weights_full[i], 1);
      Barrier::init(&shared.weights_empty[i], kWarps);
      Barrier::init(&shared.rows_full[i], 1);
      Barrier::init(&shared.rows_empty[i], kWarps);
    }
    cutlass::arch::fence_barrier_init();
  }
  if (warp == kWarps && lane < 8)
    cute::prefetch_tma_descriptor(lane < 4 ? &p.up.whole[lane] : &p.down.whole[lane - 4]);
  make_decode_plan(p.plan, shared.plan);
  if (shared.plan.most_rows <= 8)
    run<1>(p, shared, warp, lane);
  else if (shared.plan.most_rows <= 16)
    run<2>(p, shared, warp, lane);
  else if (shared.plan.most_rows <= 32)
    run<4>(p, shared, warp, lane);
  else
    run<8>(p, shared, warp, lane);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    arrive(1);
    wait(1, shared.before[1]);
  }
  __syncthreads();
  sum_tokens(p, shared.plan);
}

WeightMaps make_weight_maps(PlacedWeights weights, int num_places, int halves, int rows, int depth) {
  WeightMaps maps;
  for (int i = 0, groups = 1; i < 4; ++i, groups *= 2)
    if (depth >= 64)
      maps.whole[i] = make_tensor_map(weights.data, {64, rows, halves, depth / 64, num_places},
                                      {depth, long(rows) * depth, 64, weights.stride},
                                      {64, 16 * groups / halves, halves, kWarps / groups, 1});
  maps.pieces = make_tensor_map(weights.data, {depth, rows, halves, 1, num_places},
                                {depth, long(rows) * depth, 64, weights.stride}, {64, 8, 1, 1, 1});
  return maps;
}

}  // namespace

void expert_decode(const ExpertLayer& layer, const Decode& decode, cudaStream_t stream) {
  const ExpertShape& shape = layer.shape;
  const int hidden_width = layer.activation.hidden_width(shape.expert_width);
  Params p{};
  const int halves = layer.activation.gated() ? 2 : 1;
  p.up = make_weight_maps(layer.gate_up, shape.num_places, halves, hidden_width / halves, shape.model_width);
  p.down = make_weight_maps(layer.down, shape.num_places, 1, shape.model_width, shape.expert_width);
  p.plan = {decode.slots,
            layer.plan.row_assignment,
            layer.plan.expert_offset,
            layer.plan.place_of_expert,
            shape.num_experts,
            shape.num_tokens * shape.top_k,
            shape.top_k};
  p.x = static_cast<const bf16*>(decode.x);
  p.x_stride = decode.x_stride;
  p.up_bias = static_cast<const bf16*>(layer.gate_up_bias.data);
  p.up_bias_stride = layer.gate_up_bias.stride;
  p.down_bias = static_cast<const bf16*>(layer.down_bias.data);
  p.down_bias_stride = layer.down_bias.stride;
  p.gate_weights = decode.gate_weights;
  p.activation = layer.activation;
  p.activated = static_cast<bf16*>(decode.activated);
  p.rows = static_cast<bf16*>(decode.rows);
  p.y = decode.y;
  p.y_fp32 = decode.y_fp32;
  p.num_tokens = shape.num_tokens;
  p.top_k = shape.top_k;
  p.model_width = shape.model_width;
  p.expert_width = shape.expert_width;
  if (decode.zero_experts) p.zero_experts = *decode.zero_experts;
  p.mixes = reinterpret_cast<float2*>(decode.mixes);

  int device = 0, num_sms = 0;
  MOTLEY_CUDA_CHECK(cudaGetDevice(&device));
  MOTLEY_CUDA_CHECK(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device));
  MOTLEY_CUDA_CHECK(cudaFuncSetAttribute(decode_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(sizeof(Shared))));
  cudaLaunchConfig_t config{};
  config.gridDim = num_sms;
  config.blockDim = kDecodeThreads;
  config.dynamicSmemBytes = sizeof(Shared);
  config.stream = stream;
  cudaLaunchAttribute attribute;  // all blocks at once: they wait for each other
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  MOTLEY_CUDA_CHECK(cudaLaunchKernelEx(&config, decode_kernel, p));
}

}  // namespace motley::cuda::sm90
