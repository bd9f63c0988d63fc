// x W_gate_up^T with the activation. A tile takes 128 gate rows and the matching 128 up rows as one B of
// 256 rows: block 0 of the cluster brings the gate half, block 1 the up half.
#include "motley/kernels/cuda/sm90/epilogue.cuh"
#include "motley/kernels/cuda/sm90/expert_products.h"
#include "motley/kernels/cuda/sm90/gemm_arguments.h"
#include "motley/kernels/cuda/sm90/grouped_gemm.cuh"

namespace motley::cuda::sm90 {
namespace {

constexpr int kHalfN = kTileN / 2;

struct ExpertUp {
  struct Params : GemmParams {
    GatedActivation activation;
    int expert_width;
    __nv_bfloat16 *hidden, *activated;
  };
  using Walk = RowsWalk;
  using Gather = RowGather;
  static constexpr bool kGather = true, kOuter = false, kTransposed = false;
  static constexpr auto kMajorA = cute::GMMA::Major::K, kMajorB = cute::GMMA::Major::K;

  __device__ static int b_begin(const Params& p, int n_tile, int rank) {
    return rank * p.expert_width + n_tile * kHalfN;
  }

  struct Epilogue : NoPreparation {
    __device__ void run(const Params& p, const Work& work, int begin, int, const Element* finished, int warp,
                        int lane) {
      with_kind(p.activation.kind,
                [&]<GatedKind kind>() { write<kind>(p, work, begin, finished, warp, lane); });
    }
  };

  // Half a warp a row.
  template <GatedKind kind>
  __device__ static void write(const Params& p, const Work& work, int begin, const Element* finished,
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
};

}  // namespace

void expert_up(const ExpertShape& shape, const ExpertPlan& plan, const GatedActivation& activation,
               const __nv_bfloat16* x, long x_stride, PlacedWeights gate_up, __nv_bfloat16* hidden,
               __nv_bfloat16* activated, cudaStream_t stream) {
  if (shape.max_rows == 0) return;
  ExpertUp::Params p{};
  set_rows_walk(p, plan, shape.model_width, ceil_div(shape.expert_width, kHalfN));
  set_gathered(p, shape, plan, x, x_stride);
  p.map_b = make_tensor_map(gate_up.data, shape.model_width, 2l * shape.expert_width, shape.num_places,
                            shape.model_width, gate_up.stride, kHalfN);
  p.activation = activation;
  p.expert_width = shape.expert_width;
  p.hidden = hidden;
  p.activated = activated;
  grouped_gemm<ExpertUp>(p, stream);
}

}  // namespace motley::cuda::sm90
