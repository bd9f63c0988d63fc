// Weight gradients: per expert, the outer product of rows by token with rows in order. The operand by token
// is M, so that it is split between the blocks of a cluster, because what is gathered cannot be shared.
#include "motley/kernels/cuda/expert_products.h"
#include "motley/kernels/cuda/sm90/deal_tiles.h"
#include "motley/kernels/cuda/sm90/epilogue.cuh"
#include "motley/kernels/cuda/sm90/gemm_arguments.h"
#include "motley/kernels/cuda/sm90/grouped_gemm.cuh"

namespace motley::cuda::sm90 {
namespace {

// out[place] = gathered^T rows [gathered width, width], or its transpose.
template <bool transposed, bool gather>
struct Outer {
  struct Params : GemmParams {
    Gradient out;
    int width;
    __device__ bool direct() const { return out.fp32 || out.accumulate; }
  };
  using Storage = SharedStorage<>;
  using Walk = OuterWalk;
  using Gather = std::conditional_t<gather, DepthGather, NoGather>;
  static constexpr bool kGather = gather, kOuter = true, kTransposed = transposed;
  static constexpr auto kMajorA = cute::GMMA::Major::MN, kMajorB = cute::GMMA::Major::MN;

  __device__ static int b_begin(const Params&, int n_tile, int rank) {
    return n_tile * kTileN + rank * (kTileN / 2);
  }
  // Row m and columns n, n + 1, n + 8, .. of the tile, and row m + 8: whole sectors are written in either
  // order, since the lanes of a warp hold eight rows.
  template <class Accumulator>
  __device__ static void store_direct(const Params& p, const Work& work, int m, int n,
                                      const Accumulator& sum) {
    n += work.n_tile * kTileN;
    if (p.out.fp32)
      add(p, static_cast<float*>(p.out.data) + work.place * p.out.stride, m, n, sum);
    else
      add(p, static_cast<__nv_bfloat16*>(p.out.data) + work.place * p.out.stride, m, n, sum);
  }
  template <class Out, class Accumulator>
  __device__ static void add(const Params& p, Out* out, int m, int n, const Accumulator& sum) {
    const long row_step = transposed ? 1 : p.width, column_step = transposed ? p.gathered_width : 1;
#pragma unroll
    for (int j = 0; j < kTileN / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = m + i / 2 * 8, column = n + 8 * j + i % 2;
        if (row >= p.gathered_width || column >= p.width) continue;
        Out* to = out + row * row_step + column * column_step;
        *to = Out(p.out.accumulate ? float(*to) + sum(4 * j + i) : sum(4 * j + i));
      }
  }
  struct Epilogue : NoPreparation {
    using NoPreparation::NoPreparation;
    __device__ void run(const Params& p, const Work& work, int begin, int, const Element* finished, int warp,
                        int lane) {
      __nv_bfloat16* out = static_cast<__nv_bfloat16*>(p.out.data) + work.place * p.out.stride;
      if constexpr (transposed)
        store_transposed(out, p.gathered_width, begin, p.gathered_width, work.n_tile, p.width, finished, warp,
                         lane);
      else
        store_rows(out, p.width, begin, p.gathered_width, work.n_tile, p.width, finished, warp, lane);
    }
  };
};

template <bool transposed, bool gather>
void multiply_outer(const ExpertShape& shape, const ExpertPlan& plan, const OuterProduct& product,
                    cudaStream_t stream) {
  using Op = Outer<transposed, gather>;
  typename Op::Params p{};
  set_outer_walk(p, shape, plan, product.gathered_width, ceil_div(product.row_width, kTileN));
  if constexpr (gather)
    set_gathered(p, shape, plan, product.gathered, product.gathered_stride, product.gathered_width);
  else
    p.map_a = rows_map(shape, product.gathered, product.gathered_stride, product.gathered_width);
  p.gathered_width = product.gathered_width;
  p.map_b = rows_map(shape, product.by_row, product.row_width, product.row_width);
  p.out = product.out;
  p.width = product.row_width;
  if (product.scratch) {
    p.dealt = product.scratch;
    deal_tiles(plan, shape.num_experts, p.num_m_tiles * p.num_n_tiles, num_clusters(), product.scratch,
               stream);
  }
  grouped_gemm<Op>(p, stream);
}

}  // namespace

void expert_outer(const ExpertShape& shape, const ExpertPlan& plan, const OuterProduct& product,
                  cudaStream_t stream) {
  if (product.gathered_first)
    (product.by_token ? multiply_outer<false, true> : multiply_outer<false, false>)(shape, plan, product,
                                                                                    stream);
  else
    (product.by_token ? multiply_outer<true, true> : multiply_outer<true, false>)(shape, plan, product,
                                                                                  stream);
}

}  // namespace motley::cuda::sm90
