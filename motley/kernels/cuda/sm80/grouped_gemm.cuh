// Grouped products of all experts in one persistent kernel for sm_80 or newer: tensor cores by mma.sync
// (plain multiply-adds for fp32), all loads by cp.async, results straight from registers. While a tile is
// finished, the first steps of the next are on their way.
//
// An operation Op gives
//   T, Params           element type; RowsParams<T> or OuterParams<T> with the arguments of `finish`
//   kOuter              K runs over rows
//   kMajorK             rows products: whether B's lines run along K
//   b_column, b_step, b_line, num_columns   see load.cuh
//   finish(p, work, sum)
#pragma once

#include <type_traits>

#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/sm80/multiply.cuh"

namespace motley::cuda::sm80 {

constexpr int kQuarters = 4;
static_assert(kQuarters == kTilesM && kQuarters == kTilesN / 2 && kQuarters == kIssueParts);

template <class Op>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const __grid_constant__ typename Op::Params p) {
  using T = typename Op::T;
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  const uint32_t first = shared_address(shared_bytes), end = first + p.stages * kStageBytes;
  const WorkTable table(p, reinterpret_cast<int*>(shared_bytes + p.stages * kStageBytes), Op::kOuter);
  std::conditional_t<Op::kOuter, OuterLoader<Op>, RowsLoader<Op>> loader(p, table);
  const auto advance = [&](uint32_t& stage) {
    stage += kStageBytes;
    if (stage == end) stage = first;
  };

  uint32_t write = first, read = first;
  for (int i = 0; i < p.stages - 1; ++i, write += kStageBytes) {
    for (int part = 0; part < kIssueParts; ++part) loader.issue(write, part);
    commit_copies();
  }
  wait_for_copies(p.stages);
  __syncthreads();
  Multiplier<T, !Op::kOuter, Op::kMajorK> multiplier;
  for (int index = blockIdx.x;; index += gridDim.x) {
    const Work work = Op::kOuter ? table.outer_tile(index) : table.rows_tile(index);
    if (!work.valid) break;
    const int depth = Op::depth(p, work), steps = (depth + kTileK<T> - 1) / kTileK<T>;
    Sum sum = {};
#pragma unroll
    for (int i = 0; i < kQuarters; ++i) multiplier.read_first(read, i);
    for (int step = 0; step < steps; ++step) {
#pragma unroll
      for (int i = 0; i < kQuarters; ++i) {
        multiplier.read_second(read, i);
        loader.issue(write, i);
        multiplier.multiply_first(sum, read, i);
      }
      commit_copies();
      advance(write);
      advance(read);
      wait_for_copies(p.stages);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kQuarters; ++i) {
        multiplier.read_first(read, i);
        multiplier.multiply_second(sum, i);
      }
    }
    Op::finish(p, work, sum);
  }
}

// Blocks are as many as the card has multiprocessors; small products leave some without work.
template <class Op>
void grouped_gemm(typename Op::Params p, cudaStream_t stream) {
  int device = 0, num_sms = 0, shared_limit = 0;
  MOTLEY_CUDA_CHECK(cudaGetDevice(&device));
  MOTLEY_CUDA_CHECK(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device));
  MOTLEY_CUDA_CHECK(cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  p.stages = num_stages(shared_limit, p.num_experts);
  const int shared_bytes = p.stages * kStageBytes + table_bytes(p.num_experts);
  MOTLEY_CUDA_CHECK(cudaFuncSetAttribute(grouped_gemm_kernel<Op>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         shared_bytes));
  grouped_gemm_kernel<Op><<<num_sms, kThreads, shared_bytes, stream>>>(p);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda::sm80
