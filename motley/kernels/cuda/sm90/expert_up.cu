// x W_gate_up^T with the activation. Where it is gated, a tile takes 128 gate rows and the matching 128 up
// rows as one B of 256 rows: block 0 of the cluster brings the gate half, block 1 the up half.
#include <type_traits>

#include "motley/kernels/cuda/sm90/by_token.h"
#include "motley/kernels/cuda/sm90/epilogue.cuh"
#include "motley/kernels/cuda/sm90/gemm_arguments.h"
#include "motley/kernels/cuda/sm90/grouped_gemm.cuh"

namespace motley::cuda::sm90 {
namespace {

constexpr int kHalfN = kTileN / 2;

template <bool gather>
struct Up {
  struct Params : GemmParams {
    Activation activation;
    int expert_width;
    __nv_bfloat16 *hidden, *activated;
  };
  using Storage = SharedStorage<>;
  using Walk = RowsWalk;
  using Gather = std::conditional_t<gather, RowGather, NoGather>;
  static constexpr bool kGather = gather, kOuter = false, kTransposed = false;
  static constexpr auto kMajorA = cute::GMMA::Major::K, kMajorB = cute::GMMA::Major::K;

  __device__ static int b_begin(const Params& p, int n_tile, int rank) {
    return p.activation.gated() ? rank * p.expert_width + n_tile * kHalfN : n_tile * kTileN + rank * kHalfN;
  }

  struct Epilogue : NoPreparation {
    using NoPreparation::NoPreparation;
    __device__ void run(const Params& p, const Work& work, int begin, int, const Element* finished, int warp,
                        int lane) {
      with_kind(p.activation.kind, [&]<ActivationKind kind>() {
        if constexpr (is_gated(kind))
          write_gated<kind>(p, work, begin, finished, warp, lane);
        else
          write<kind>(p, work, begin, finished, warp, lane);
      });
    }
  };

  // Half a warp a row.
  template <ActivationKind kind>
  __device__ static void write_gated(const Params& p, const Work& work, int begin, const Element* finished,
                                     int warp, int lane) {
    const int within = lane % 16 * 8, column = work.n_tile * kHalfN + within;
    if (column >= p.expert_width) return;
#pragma unroll 4
    for (int row = 2 * warp + lane / 16; row < kBlockRows; row += 2 * kEpilogueWarps) {
      const long to = begin + row;
      if (to >= work.row_end) continue;
      const Chunk gate = read_finished(finished, row, within),
                  up = read_finished(finished, row, kHalfN + within);
      Chunk out;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 g = gate.get(i), u = up.get(i);
        out.set(i, activate<kind>(p.activation, g.x, u.x), activate<kind>(p.activation, g.y, u.y));
      }
      write_chunk(p.activated + to * p.expert_width + column, out);
      if (p.hidden) {
        __nv_bfloat16* hidden = p.hidden + to * 2 * p.expert_width + column;
        write_chunk(hidden, gate);
        write_chunk(hidden + p.expert_width, up);
      }
    }
  }

  // A warp a row.
  template <ActivationKind kind>
  __device__ static void write(const Params& p, const Work& work, int begin, const Element* finished,
                               int warp, int lane) {
    const int column = work.n_tile * kTileN + lane * 8;
    if (column >= p.expert_width) return;
#pragma unroll 2
    for (int row = warp; row < kBlockRows; row += kEpilogueWarps) {
      if (begin + row >= work.row_end) break;
      const long to = (begin + row) * long(p.expert_width) + column;
      const Chunk before = read_finished(finished, row, lane * 8);
      Chunk out = before;
      if constexpr (kind != ActivationKind::kNone)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 g = before.get(i);
          out.set(i, activate<kind>(p.activation, g.x, 0), activate<kind>(p.activation, g.y, 0));
        }
      write_chunk(p.activated + to, out);
      if (p.hidden) write_chunk(p.hidden + to, before);
    }
  }
};

template <bool gather>
void multiply_and_activate(const ExpertShape& shape, const ExpertPlan& plan, const UpProduct& product,
                           cudaStream_t stream) {
  const int hidden_width = product.activation.hidden_width(shape.expert_width);
  typename Up<gather>::Params p{};
  set_rows_walk(p, plan, shape.model_width,
                ceil_div(shape.expert_width, product.activation.gated() ? kHalfN : kTileN));
  if constexpr (gather)
    set_gathered(p, shape, plan, product.x, product.x_stride, shape.model_width);
  else
    p.map_a = rows_map(shape, product.x, product.x_stride, shape.model_width);
  p.map_b = weights_map(shape, product.gate_up, hidden_width, shape.model_width, kHalfN);
  set_bias(p, product.bias, hidden_width);
  p.activation = product.activation;
  p.expert_width = shape.expert_width;
  p.hidden = static_cast<__nv_bfloat16*>(product.hidden);
  p.activated = static_cast<__nv_bfloat16*>(product.activated);
  grouped_gemm<Up<gather>>(p, stream);
}

}  // namespace

void expert_up(const ExpertShape& shape, const ExpertPlan& plan, const UpProduct& product,
               cudaStream_t stream) {
  (product.by_token ? multiply_and_activate<true> : multiply_and_activate<false>)(shape, plan, product,
                                                                                  stream);
}

void multiply_by_token_transposed(const ExpertShape& shape, const ExpertPlan& plan,
                                  const RowsProduct& product, const CUtensorMap& weights,
                                  cudaStream_t stream) {
  Up<true>::Params p{};
  set_rows_walk(p, plan, product.depth, ceil_div(product.width, kTileN));
  set_gathered(p, shape, plan, product.x, product.x_stride, product.depth);
  p.map_b = weights;
  set_bias(p, product.bias, product.width);
  p.activation.kind = ActivationKind::kNone;
  p.expert_width = product.width;
  p.activated = static_cast<__nv_bfloat16*>(product.out);
  grouped_gemm<Up<true>>(p, stream);
}

}  // namespace motley::cuda::sm90
