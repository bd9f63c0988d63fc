// Weight gradients: per expert, the outer product of rows gathered by token with rows in order. The
// gathered operand is M, so that it is split between the blocks of a cluster and the other is shared.
#include "motley/kernels/cuda/sm90/epilogue.cuh"
#include "motley/kernels/cuda/sm90/expert_products.h"
#include "motley/kernels/cuda/sm90/gemm_arguments.h"
#include "motley/kernels/cuda/sm90/grouped_gemm.cuh"

namespace motley::cuda::sm90 {
namespace {

// out[place] = gathered^T rows [gathered width, width], or its transpose.
template <bool transposed>
struct OuterProduct {
  struct Params : GemmParams {
    __nv_bfloat16* out;
    long out_stride;  // between places
    int width;
  };
  using Walk = OuterWalk;
  using Gather = DepthGather;
  static constexpr bool kGather = true, kOuter = true, kTransposed = transposed;
  static constexpr auto kMajorA = cute::GMMA::Major::MN, kMajorB = cute::GMMA::Major::MN;

  __device__ static int b_begin(const Params&, int n_tile, int rank) {
    return n_tile * kTileN + rank * (kTileN / 2);
  }
  struct Epilogue : NoPreparation {
    __device__ void run(const Params& p, const Work& work, int begin, int, const Element* finished, int warp,
                        int lane) {
      __nv_bfloat16* out = p.out + work.place * p.out_stride;
      if constexpr (transposed)
        store_transposed(out, p.gathered_width, begin, p.gathered_width, work.n_tile, p.width, finished, warp,
                         lane);
      else
        store_rows(out, p.width, begin, p.gathered_width, work.n_tile, p.width, finished, warp, lane);
    }
  };
};

template <bool transposed>
void expert_outer(const ExpertShape& shape, const ExpertPlan& plan, const __nv_bfloat16* gathered,
                  long gathered_stride, const __nv_bfloat16* rows, int width, __nv_bfloat16* out,
                  long out_stride, cudaStream_t stream) {
  if (shape.max_rows == 0) {
    MOTLEY_CUDA_CHECK(cudaMemset2DAsync(out, sizeof(*out) * out_stride, 0,
                                        sizeof(*out) * shape.model_width * width, shape.num_places, stream));
    return;
  }
  using Op = OuterProduct<transposed>;
  typename Op::Params p{};
  set_outer_walk(p, shape, plan, shape.model_width, ceil_div(width, kTileN));
  set_gathered(p, shape, plan, gathered, gathered_stride);
  p.map_b = rows_map(shape, rows, width);
  p.out = out;
  p.out_stride = out_stride;
  p.width = width;
  grouped_gemm<Op>(p, stream);
}

}  // namespace

void expert_ddown(const ExpertShape& shape, const ExpertPlan& plan, const __nv_bfloat16* dy, long dy_stride,
                  const __nv_bfloat16* weighted, __nv_bfloat16* ddown, long ddown_stride,
                  cudaStream_t stream) {
  expert_outer<false>(shape, plan, dy, dy_stride, weighted, shape.expert_width, ddown, ddown_stride, stream);
}

void expert_dgate_up(const ExpertShape& shape, const ExpertPlan& plan, const __nv_bfloat16* x, long x_stride,
                     const __nv_bfloat16* dhidden, __nv_bfloat16* dgate_up, long dgate_up_stride,
                     cudaStream_t stream) {
  expert_outer<true>(shape, plan, x, x_stride, dhidden, 2 * shape.expert_width, dgate_up, dgate_up_stride,
                     stream);
}

}  // namespace motley::cuda::sm90
