// The matrix products: one warp group multiplies its 64 rows with all 256 columns of the tile, then
// leaves the tile, rounded to bf16, in shared memory for the epilogue and goes on with the next.
#pragma once

#include <cute/algorithm/gemm.hpp>
#include <cute/arch/mma_sm90.hpp>
#include <cute/atom/mma_atom.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>

#include "motley/kernels/cuda/sm90/gather.cuh"

namespace motley::cuda::sm90 {

template <cute::GMMA::Major major, int rows, int stages>
__device__ auto stages_tensor(Element* data) {
  using namespace cute;
  using Shape = cute::Shape<Int<rows>, Int<kTileK>, Int<stages>>;
  if constexpr (major == GMMA::Major::K)
    return make_tensor(make_smem_ptr(data), tile_to_shape(GMMA::Layout_K_SW128_Atom<Element>{}, Shape{}));
  else
    return make_tensor(make_smem_ptr(data),
                       tile_to_shape(GMMA::Layout_MN_SW128_Atom<Element>{}, Shape{}, Step<_2, _1, _3>{}));
}

__device__ inline uint32_t pack(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}

// Four 8 x 8 matrices of the accumulator at a time: rows 0-7 and 8-15 of the warp, columns 8j.. and the
// eight after.
template <bool transposed, class Accumulator>
__device__ void write_finished(const Accumulator& sum, Element* finished, int warp, int lane) {
  const uint32_t base = cute::cast_smem_ptr_to_uint(finished);
  const int row_chunk = warp * 2 + lane / 8 % 2, column_chunk = lane / 16, line = lane % 8;
#pragma unroll
  for (int j = 0; j < kTileN / 8; j += 2) {
    const uint32_t upper = pack(sum(4 * j), sum(4 * j + 1)), lower = pack(sum(4 * j + 2), sum(4 * j + 3));
    const uint32_t upper_next = pack(sum(4 * j + 4), sum(4 * j + 5)),
                   lower_next = pack(sum(4 * j + 6), sum(4 * j + 7));
    if constexpr (transposed)
      asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                       base + finished_offset<true>((j + column_chunk) * 8 + line, row_chunk)),
                   "r"(upper), "r"(lower), "r"(upper_next), "r"(lower_next)
                   : "memory");
    else
      asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                       base + finished_offset<false>(row_chunk * 8 + line, j + column_chunk)),
                   "r"(upper), "r"(lower), "r"(upper_next), "r"(lower_next)
                   : "memory");
  }
}

// Column 8 j + 2 (lane % 4) of the tile lies in row b_begin(.., half) + 8 j % 128 + .. of B, and so does its
// bias.
template <class Op, class Accumulator>
__device__ void add_bias(const typename Op::Params& p, const Work& work, Accumulator& sum, int lane) {
  const __nv_bfloat16* bias = p.bias + work.place * p.bias_stride;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = Op::b_begin(p, work.n_tile, half) + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kTileN / 16; ++i) {
      const int column = first + 8 * i, j = half * (kTileN / 16) + i;
      if (column >= p.bias_width) continue;
      const float2 both = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(bias + column));
      sum(4 * j) += both.x, sum(4 * j + 1) += both.y;
      sum(4 * j + 2) += both.x, sum(4 * j + 3) += both.y;
    }
  }
}

// Zeros in a 64 x 64 piece from line `first` on; `thread` of `threads`.
__device__ inline void zero_lines(Element* piece, int first, int thread, int threads) {
  for (int i = first * 8 + thread; i < 64 * 8; i += threads)  // 8 chunks of a 128-byte line
    reinterpret_cast<uint4*>(piece)[i] = uint4{};
}

// The last k block of an outer product reaches into rows of the next expert, or into rows that nothing
// wrote: both operands get zeros there, so that no NaN spreads; a gathered A has them already.
// `threads` are those of the warp groups that multiply.
template <bool zero_a>
__device__ void zero_rows(Element* a, Element* b, int first, int thread, int threads) {
#pragma unroll
  for (int box = 0; box < kTileN / 64; ++box) zero_lines(b + box * kBoxB, first, thread, threads);
  if constexpr (zero_a) zero_lines(a, first, thread % 128, 128);
  cutlass::arch::fence_view_async_shared();
  cutlass::arch::NamedBarrier::arrive_and_wait(threads, 0);
}

template <class Op>
__device__ void multiply(const typename Op::Params& p, typename Op::Storage& shared, int half, int thread,
                         int rank) {
  using namespace cute;
  constexpr int kStagesA = Op::Storage::kStagesA;
  const int warp = thread / 32, lane = thread % 32;
  auto mma = make_tiled_mma(
      MMA_Atom<decltype(SM90::GMMA::ss_op_selector<Element, Element, float, cute::Shape<_64, _256, _64>,
                                                   Op::kMajorA, Op::kMajorB>())>{});
  auto thread_mma = mma.get_thread_slice(thread);
  auto a = thread_mma.make_fragment_A(
      thread_mma.partition_A(stages_tensor<Op::kMajorA, kBlockRows, kStagesA>(shared.a[half][0])));
  auto b = thread_mma.make_fragment_B(
      thread_mma.partition_B(stages_tensor<Op::kMajorB, kTileN, kStages>(shared.b[0])));
  auto sum = partition_fragment_C(mma, cute::Shape<_64, Int<kTileN>>{});

  // A stage of B is free when all warps of both blocks are done with it: the other block writes here too.
  // One of a gathered A belongs to this group alone, which fetches into it at once.
  typename Op::Gather gather(p, half, rank, thread);
  Ring<kStagesA> gathered, fetched;
  const auto fetch = [&] {
    gather.issue(shared.a[half][fetched.index], &shared.gathered[half][fetched.index]);
    fetched.advance();
  };
  const auto release = [&](int stage) {
    Barrier::arrive(&shared.empty[stage], lane, lane < kClusterBlocks);
    if constexpr (Op::kGather) {
      cutlass::arch::NamedBarrier::arrive_and_wait(128, 1 + half);
      fetch();
    }
  };
  if constexpr (Op::kGather)
    for (int i = 0; i < kStagesA; ++i) fetch();

  Ring<kStages> stage;
  uint32_t finished_phase = 1;
  for (typename Op::Walk walk(p); walk.valid(); walk.advance()) {
    const int k_blocks = walk.k_blocks();
    const int tail = Op::kOuter ? (walk.work().row_end - walk.work().row_begin) % kTileK : 0;
    if (!walk.active(half, rank)) {
      for (int k = 0; k < k_blocks; ++k, stage.advance()) {
        wait(shared.full[stage.index], stage.phase);
        Barrier::arrive(&shared.empty[stage.index], lane, lane < kClusterBlocks);
      }
      continue;
    }
    if (Op::kOuter && k_blocks == 0) clear(sum);  // an expert without rows gives zeros
    mma.accumulate_ = GMMA::ScaleOut::Zero;
    int previous = 0;
    for (int k = 0; k < k_blocks; ++k, stage.advance()) {
      wait(shared.full[stage.index], stage.phase);
      if (Op::kOuter && tail && k == k_blocks - 1)
        zero_rows<!Op::kGather>(shared.a[half][stage.index], shared.b[stage.index], tail, half * 128 + thread,
                                walk.active(1, rank) ? 256 : 128);
      // No proxy fence between cp.async and wgmma, as in CUTLASS's own cp.async main loops: it would wait for
      // all of this thread's loads, those for later k blocks too.
      if constexpr (Op::kGather) wait(shared.gathered[half][gathered.index], gathered.phase);
      const int stage_a = Op::kGather ? gathered.index : stage.index;
      warpgroup_fence_operand(sum);
      warpgroup_arrive();
#pragma unroll
      for (int i = 0; i < kTileK / 16; ++i) {
        cute::gemm(mma, a(_, _, i, stage_a), b(_, _, i, stage.index), sum);
        mma.accumulate_ = GMMA::ScaleOut::One;
      }
      warpgroup_commit_batch();
      warpgroup_wait<1>();
      if (k > 0) release(previous);
      previous = stage.index;
      gathered.advance();
    }
    warpgroup_wait<0>();
    warpgroup_fence_operand(sum);
    if (k_blocks > 0) release(previous);

    if constexpr (Op::kOuter) {
      if (p.direct()) {
        Op::store_direct(p, walk.work(), walk.block_begin(half, rank) + warp * 16 + lane / 4, lane % 4 * 2,
                         sum);
        continue;
      }
    } else if (p.bias) {
      add_bias<Op>(p, walk.work(), sum, lane);
    }
    wait(shared.finished_empty[half], finished_phase);
    finished_phase ^= 1;
    write_finished<Op::kTransposed>(sum, shared.finished[half], warp, lane);
    __syncwarp();
    if (lane == 0) Barrier::arrive(&shared.finished_full[half]);
  }
}

}  // namespace motley::cuda::sm90
