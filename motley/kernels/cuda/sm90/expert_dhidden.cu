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

  class Epilogue {
   public:
    __device__ void start_tile() { weight_[0] = next_weight_[0], weight_[1] = next_weight_[1]; }

    // A tile ahead: the kept hidden rows into L2 (three warps have too few loads in flight to wait for
    // device memory), the gate weights of this warp's rows, one a lane, into a register.
    __device__ void prepare(const Params& p, const Work& work, int begin, int half, int warp, int lane) {
      constexpr int kLine = 64, kLinesPerRow = 2 * kTileN / kLine;  // elements of 128 bytes
      for (int i = warp * 32 + lane; i < kBlockRows * kLinesPerRow; i += 32 * kEpilogueWarps) {
        const int row = i / kLinesPerRow, line = i % kLinesPerRow;
        const int column = work.n_tile * kTileN + line % (kLinesPerRow / 2) * kLine;
        if (begin + row >= work.row_end || column >= p.expert_width) continue;
        const __nv_bfloat16* at = p.hidden + (begin + row) * 2l * p.expert_width + column +
                                  (line < kLinesPerRow / 2 ? 0 : p.expert_width);
        asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
      }
      const int row = warp + kEpilogueWarps * lane;
      const bool mine = row < kBlockRows && begin + row < work.row_end;
      next_weight_[half] = mine ? __ldg(p.gate_weights + __ldg(p.row_assignment + begin + row)) : 0.f;
    }
    __device__ void run(const Params& p, const Work& work, int begin, int half, const Element* finished,
                        int warp, int lane) {
      with_kind(p.activation.kind,
                [&]<GatedKind kind>() { write<kind>(p, work, begin, weight_[half], finished, warp, lane); });
    }

   private:
    // A warp takes a row of 256 columns at a time. Four rows are on their way from memory while one is
    // computed: under load L2 answers after more than a thousand cycles.
    template <GatedKind kind>
    __device__ static void write(const Params& p, const Work& work, int begin, float weights,
                                 const Element* finished, int warp, int lane) {
      const int column = work.n_tile * kTileN + lane * 8;
      const bool inside = column < p.expert_width;
      const int rows = min(kBlockRows, work.row_end - begin);
      const int count = (rows - warp + kEpilogueWarps - 1) / kEpilogueWarps;  // of this warp
      Chunk gate[4], up[4];
      const auto read = [&](int i, int index) {
        const long row = begin + warp + kEpilogueWarps * index;
        const bool valid = inside && index < count;
        const uint4* hidden = reinterpret_cast<const uint4*>(p.hidden + row * 2 * p.expert_width + column);
        gate[i].bits = valid ? __ldg(hidden) : uint4{};
        up[i].bits = valid ? __ldg(hidden + p.expert_width / 8) : uint4{};
      };
#pragma unroll
      for (int i = 0; i < 4; ++i) read(i, i);
      for (int first = 0; first < count; first += 4) {
        float part[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int index = first + i, within = warp + kEpilogueWarps * index;
          const float weight = __shfl_sync(0xffffffffu, weights, index);
          const bool valid = inside && index < count;
          const float row_part = write_chunks<kind>(
              p, valid, begin + within, column, weight,
              read_finished(finished, min(within, kBlockRows - 1), lane * 8), gate[i], up[i]);
          part[i] = valid ? row_part : 0.f;
          read(i, index + 4);
        }
        const float sum = sum_four(part, lane);
        const int index = first + lane % 2 * 2 + lane / 2 % 2;
        if (lane < 4 && index < count)
          p.gate_parts[work.n_tile * p.max_rows + begin + warp + kEpilogueWarps * index] = sum;
      }
    }

    // Eight columns of a row; returns their part of the gate weight's gradient. Without branches, so that the
    // compiler interleaves rows: one row alone waits for itself.
    template <GatedKind kind>
    __device__ static float write_chunks(const Params& p, bool valid, long row, int column, float weight,
                                         const Chunk& da, const Chunk& gate, const Chunk& up) {
      Chunk dgate, dup, weighted;
      float part = 0.f;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 d = da.get(j), g = gate.get(j), u = up.get(j);
        const GatedGradient low = activate_with_gradient<kind>(p.activation, g.x, u.x);
        const GatedGradient high = activate_with_gradient<kind>(p.activation, g.y, u.y);
        part += d.x * low.value + d.y * high.value;
        const float dx = d.x * weight, dy = d.y * weight;
        dgate.set(j, dx * low.dg, dy * high.dg);
        dup.set(j, dx * low.du, dy * high.du);
        weighted.set(j, weight * low.value, weight * high.value);
      }
      __nv_bfloat16* dhidden = p.dhidden + row * 2 * p.expert_width + column;
      write_chunk_if(valid, dhidden, dgate);
      write_chunk_if(valid, dhidden + p.expert_width, dup);
      write_chunk_if(valid, p.weighted + row * p.expert_width + column, weighted);
      return part;
    }

    // Sums of four values over the warp in a fixed order: lane l gets that of value l % 2 * 2 + l / 2 % 2.
    __device__ static float sum_four(const float (&part)[4], int lane) {
      const bool odd = lane % 2, upper = lane / 2 % 2;
      float even_row = odd ? part[2] : part[0], odd_row = odd ? part[3] : part[1];
      even_row += __shfl_xor_sync(0xffffffffu, odd ? part[0] : part[2], 1);
      odd_row += __shfl_xor_sync(0xffffffffu, odd ? part[1] : part[3], 1);
      float sum = upper ? odd_row : even_row;
      sum += __shfl_xor_sync(0xffffffffu, upper ? even_row : odd_row, 2);
      for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
      return sum;
    }

    float weight_[2], next_weight_[2] = {};  // of the halves of a tile, one row a lane
  };
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
