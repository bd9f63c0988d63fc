// Backward through down projection and activation: dy W_down, then, row by row from the kept hidden, the
// activation again, its gradient and the gate weight's, so that neither A nor output rows are kept.
#include "motley/kernels/cuda/sm90/epilogue.cuh"
#include "motley/kernels/cuda/sm90/expert_products.h"
#include "motley/kernels/cuda/sm90/gemm_arguments.h"
#include "motley/kernels/cuda/sm90/grouped_gemm.cuh"

namespace motley::cuda::sm90 {
namespace {

struct ExpertDhidden {
  struct Params : GemmParams {
    GatedActivation activation;
    int expert_width;
    long max_rows;
    const __nv_bfloat16* hidden;
    const float* gate_weights;
    __nv_bfloat16 *dhidden, *weighted;
    float* gate_parts;
  };
  using Walk = RowsWalk;
  using Gather = RowGather;
  static constexpr bool kGather = true, kOuter = false, kTransposed = false;
  static constexpr auto kMajorA = cute::GMMA::Major::K, kMajorB = cute::GMMA::Major::MN;

  __device__ static int b_begin(const Params&, int n_tile, int rank) {
    return n_tile * kTileN + rank * (kTileN / 2);
  }

  // A warp takes a row of 256 columns at a time, so that its part of the gate weight's gradient is one
  // reduction in a fixed order.
  __device__ static void epilogue(const Params& p, const Work& work, int begin, const Element* finished,
                                  int warp, int lane) {
    constexpr int kBatch = 4;  // rows whose loads are in flight together
    const int column = work.n_tile * kTileN + lane * 8;
    const bool inside = column < p.expert_width;
#pragma unroll 1
    for (int first = warp; first < kBlockRows && begin + first < work.row_end; first += kEpilogueWarps * kBatch) {
      Chunk gate[kBatch], up[kBatch];
      float weight[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const long row = min(begin + min(first + kEpilogueWarps * i, kBlockRows - 1), work.row_end - 1);
        const __nv_bfloat16* hidden = p.hidden + row * 2 * p.expert_width + column;
        gate[i].bits = inside ? *reinterpret_cast<const uint4*>(hidden) : uint4{};
        up[i].bits = inside ? *reinterpret_cast<const uint4*>(hidden + p.expert_width) : uint4{};
        weight[i] = p.gate_weights[p.row_assignment[row]];
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int within = first + kEpilogueWarps * i;
        const long row = begin + within;
        if (within >= kBlockRows || row >= work.row_end) break;
        const Chunk da = read_finished(finished, within, lane * 8);
        Chunk dgate, dup, weighted;
        float gate_part = 0.f;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float2 d = da.get(j), g = gate[i].get(j), u = up[i].get(j);
          const GatedGradient low = activate_with_gradient(p.activation, g.x, u.x);
          const GatedGradient high = activate_with_gradient(p.activation, g.y, u.y);
          gate_part += d.x * low.value + d.y * high.value;
          const float dx = d.x * weight[i], dy = d.y * weight[i];
          dgate.set(j, dx * low.dg, dy * high.dg);
          dup.set(j, dx * low.du, dy * high.du);
          weighted.set(j, weight[i] * low.value, weight[i] * high.value);
        }
        if (!inside) gate_part = 0.f;
        for (int step = 16; step > 0; step /= 2) gate_part += __shfl_xor_sync(0xffffffffu, gate_part, step);
        if (lane == 0) p.gate_parts[work.n_tile * p.max_rows + row] = gate_part;
        if (inside) {
          __nv_bfloat16* dhidden = p.dhidden + row * 2 * p.expert_width + column;
          write_chunk(dhidden, dgate);
          write_chunk(dhidden + p.expert_width, dup);
          write_chunk(p.weighted + row * p.expert_width + column, weighted);
        }
      }
    }
  }
};

}  // namespace

int num_gate_parts(const ExpertShape& shape) { return ceil_div(shape.expert_width, kTileN); }

void expert_dhidden(const ExpertShape& shape, const ExpertPlan& plan, const GatedActivation& activation,
                    const __nv_bfloat16* dy, long dy_stride, PlacedWeights down, const __nv_bfloat16* hidden,
                    const float* gate_weights, __nv_bfloat16* dhidden, __nv_bfloat16* weighted,
                    float* gate_parts, cudaStream_t stream) {
  if (shape.max_rows == 0) return;
  ExpertDhidden::Params p{};
  set_rows_walk(p, plan, shape.model_width, num_gate_parts(shape));
  set_gathered(p, shape, plan, dy, dy_stride);
  p.map_b = make_tensor_map(down.data, shape.expert_width, shape.model_width, shape.num_places,
                            shape.expert_width, down.stride, 64);
  p.activation = activation;
  p.expert_width = shape.expert_width;
  p.max_rows = shape.max_rows;
  p.hidden = hidden;
  p.gate_weights = gate_weights;
  p.dhidden = dhidden;
  p.weighted = weighted;
  p.gate_parts = gate_parts;
  grouped_gemm<ExpertDhidden>(p, stream);
}

}  // namespace motley::cuda::sm90
