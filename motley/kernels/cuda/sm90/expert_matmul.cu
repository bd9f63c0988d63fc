// Products whose rows are read in order; those by token are expert_up's and expert_dhidden's without their
// activation.
#include "motley/kernels/cuda/sm90/by_token.h"
#include "motley/kernels/cuda/sm90/epilogue.cuh"
#include "motley/kernels/cuda/sm90/gemm_arguments.h"
#include "motley/kernels/cuda/sm90/grouped_gemm.cuh"

namespace motley::cuda::sm90 {
namespace {

// major: how the weights [K, N] of an expert lie.
template <cute::GMMA::Major major>
struct InOrder {
  struct Params : GemmParams {
    __nv_bfloat16* out;
    int width;
  };
  using Storage = SharedStorage<>;
  using Walk = RowsWalk;
  using Gather = NoGather;
  static constexpr bool kGather = false, kOuter = false, kTransposed = false;
  static constexpr auto kMajorA = cute::GMMA::Major::K, kMajorB = major;

  __device__ static int b_begin(const Params&, int n_tile, int rank) {
    return n_tile * kTileN + rank * (kTileN / 2);
  }
  struct Epilogue : NoPreparation {
    using NoPreparation::NoPreparation;
    __device__ void run(const Params& p, const Work& work, int begin, int, const Element* finished, int warp,
                        int lane) {
      store_rows(p.out, p.width, begin, work.row_end, work.n_tile, p.width, finished, warp, lane);
    }
  };
};

template <cute::GMMA::Major major>
void multiply_in_order(const ExpertShape& shape, const ExpertPlan& plan, const RowsProduct& product,
                       const CUtensorMap& weights, cudaStream_t stream) {
  using Op = InOrder<major>;
  typename Op::Params p{};
  set_rows_walk(p, plan, product.depth, ceil_div(product.width, kTileN));
  p.map_a = rows_map(shape, product.x, product.x_stride, product.depth);
  p.map_b = weights;
  set_bias(p, product.bias, product.width);
  p.out = static_cast<__nv_bfloat16*>(product.out);
  p.width = product.width;
  grouped_gemm<Op>(p, stream);
}

}  // namespace

void expert_matmul(const ExpertShape& shape, const ExpertPlan& plan, const RowsProduct& product,
                   cudaStream_t stream) {
  using cute::GMMA::Major;
  const CUtensorMap weights =
      product.transposed ? weights_map(shape, product.weight, product.width, product.depth, kTileN / 2)
                         : weights_map(shape, product.weight, product.depth, product.width, 64);
  if (product.by_token)
    (product.transposed ? multiply_by_token_transposed : multiply_by_token)(shape, plan, product, weights,
                                                                            stream);
  else if (product.transposed)
    multiply_in_order<Major::K>(shape, plan, product, weights, stream);
  else
    multiply_in_order<Major::MN>(shape, plan, product, weights, stream);
}

}  // namespace motley::cuda::sm90
