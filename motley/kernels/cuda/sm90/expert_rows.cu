// Products whose rows are read and written in order: activated W_down^T and dhidden W_gate_up.
#include "motley/kernels/cuda/sm90/epilogue.cuh"
#include "motley/kernels/cuda/sm90/expert_products.h"
#include "motley/kernels/cuda/sm90/gemm_arguments.h"
#include "motley/kernels/cuda/sm90/grouped_gemm.cuh"

namespace motley::cuda::sm90 {
namespace {

// major: how the weights [K, N] of an expert lie.
template <cute::GMMA::Major major>
struct RowsProduct {
  struct Params : GemmParams {
    __nv_bfloat16* rows;
    int width;
  };
  using Walk = RowsWalk;
  using Gather = NoGather;
  static constexpr bool kGather = false, kOuter = false, kTransposed = false;
  static constexpr auto kMajorA = cute::GMMA::Major::K, kMajorB = major;

  __device__ static int b_begin(const Params&, int n_tile, int rank) {
    return n_tile * kTileN + rank * (kTileN / 2);
  }
  struct Epilogue : NoPreparation {
    __device__ void run(const Params& p, const Work& work, int begin, int, const Element* finished, int warp,
                        int lane) {
      store_rows(p.rows, p.width, begin, work.row_end, work.n_tile, p.width, finished, warp, lane);
    }
  };
};

}  // namespace

void expert_down(const ExpertShape& shape, const ExpertPlan& plan, const __nv_bfloat16* activated,
                 PlacedWeights down, __nv_bfloat16* rows, cudaStream_t stream) {
  if (shape.max_rows == 0) return;
  using Op = RowsProduct<cute::GMMA::Major::K>;
  Op::Params p{};
  set_rows_walk(p, plan, shape.expert_width, ceil_div(shape.model_width, kTileN));
  p.map_a = rows_map(shape, activated, shape.expert_width);
  p.map_b = make_tensor_map(down.data, shape.expert_width, shape.model_width, shape.num_places,
                            shape.expert_width, down.stride, kTileN / 2);
  p.rows = rows;
  p.width = shape.model_width;
  grouped_gemm<Op>(p, stream);
}

void expert_dx(const ExpertShape& shape, const ExpertPlan& plan, const __nv_bfloat16* dhidden,
               PlacedWeights gate_up, __nv_bfloat16* rows, cudaStream_t stream) {
  if (shape.max_rows == 0) return;
  using Op = RowsProduct<cute::GMMA::Major::MN>;
  Op::Params p{};
  set_rows_walk(p, plan, 2 * shape.expert_width, ceil_div(shape.model_width, kTileN));
  p.map_a = rows_map(shape, dhidden, 2 * shape.expert_width);
  p.map_b = make_tensor_map(gate_up.data, shape.model_width, 2l * shape.expert_width, shape.num_places,
                            shape.model_width, gate_up.stride, 64);
  p.rows = rows;
  p.width = shape.model_width;
  grouped_gemm<Op>(p, stream);
}

}  // namespace motley::cuda::sm90
