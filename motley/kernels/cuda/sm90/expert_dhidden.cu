// Backward through down projection and activation: dy W_down, then, row by row from the kept hidden, the
// activation again, its gradient and the gate weight's, so that neither A nor output rows are kept.
#include "motley/kernels/cuda/sm90/by_token.h"
#include "motley/kernels/cuda/sm90/epilogue.cuh"
#include "motley/kernels/cuda/sm90/gemm_arguments.h"
#include "motley/kernels/cuda/sm90/grouped_gemm.cuh"

namespace motley::cuda::sm90 {
namespace {

// gather: dy by token, else by row.
template <bool gather>
struct Dhidden {
  struct Params : GemmParams {
    Activation activation;
    int expert_width;
    long hidden_stride, max_rows;
    const __nv_bfloat16* hidden;
    const float* gate_weights;
    __nv_bfloat16 *dhidden, *weighted;
    float* gate_parts;
    __nv_bfloat16* plain;  // dA' itself and nothing else, if not null
  };
  // Kept hidden rows of 256 columns of gate and of up, for each warp of the epilogue.
  static constexpr int kHiddenRows = 6;
  struct OfEpilogue {
    __nv_bfloat16 hidden[kEpilogueWarps][kHiddenRows * 2 * kTileN];
  };
  using Storage = SharedStorage<3, OfEpilogue>;
  using Walk = RowsWalk;
  using Gather = std::conditional_t<gather, RowGather, NoGather>;
  static constexpr bool kGather = gather, kOuter = false, kTransposed = false;
  static constexpr auto kMajorA = cute::GMMA::Major::K, kMajorB = cute::GMMA::Major::MN;

  __device__ static int b_begin(const Params&, int n_tile, int rank) {
    return n_tile * kTileN + rank * (kTileN / 2);
  }

  class Epilogue {
   public:
    __device__ Epilogue(Storage& shared, int warp, int lane)
        : ring_(shared.of_epilogue.hidden[warp] + lane * 8) {}

    __device__ void start_tile() { weight_[0] = next_weight_[0], weight_[1] = next_weight_[1]; }

    // A tile ahead: where the kept hidden rows of this warp lie, and the gate weights of its rows, one a
    // lane.
    __device__ void prepare(const Params& p, const Work& work, int begin, int half, int warp, int lane) {
      if (p.plain) return;
      const int rows = min(kBlockRows, work.row_end - begin);
      const Source source{begin + warp, num_own_rows(rows, warp), work.n_tile * kTileN + lane * 8};
      if (source.rows > 0) {
        bool placed = false;
#pragma unroll
        for (Source& place : sources_)
          if (!placed && place.rows == 0) place = source, placed = true;
      }
      const int row = warp + kEpilogueWarps * lane;
      const bool mine = row < rows;
      next_weight_[half] = mine ? __ldg(p.gate_weights + __ldg(p.row_assignment + begin + row)) : 0.f;
    }
    __device__ void run(const Params& p, const Work& work, int begin, int half, Element* finished, int warp,
                        int lane) {
      if (p.plain)
        store_rows(p.plain, p.expert_width, begin, work.row_end, work.n_tile, p.expert_width, finished, warp,
                   lane);
      else
        with_kind(p.activation.kind, [&]<ActivationKind kind>() {
          write<kind>(p, work, begin, half ? weight_[1] : weight_[0], finished, warp, lane);
        });
    }

   private:
    struct Source {  // hidden rows still to be fetched, every third one
      int next_row = 0, rows = 0, column = 0;
    };
    __device__ static int num_own_rows(int rows, int warp) {
      return (rows - warp + kEpilogueWarps - 1) / kEpilogueWarps;
    }

    // Fills the ring: each lane copies what it will read itself, so that no barrier is needed.
    template <bool gated>
    __device__ void fetch(const Params& p) {
#pragma unroll 1
      while (ahead_ < kHiddenRows) {
        if (sources_[0].rows == 0) return;
        Source& source = sources_[0];
        const uint32_t to = cute::cast_smem_ptr_to_uint(ring_ + fetched_ * 2 * kTileN);
        const bool inside = source.column < p.expert_width;
        const __nv_bfloat16* from =
            p.hidden + (inside ? source.next_row * p.hidden_stride + source.column : 0);
        copy(to, from, inside);
        if constexpr (gated) copy(to + 2 * kTileN, inside ? from + p.expert_width : from, inside);
        cute::cp_async_fence();
        source.next_row += kEpilogueWarps;
        if (--source.rows == 0)
          sources_[0] = sources_[1], sources_[1] = sources_[2], sources_[2] = sources_[3], sources_[3] = {};
        ++ahead_;
        fetched_ = fetched_ + 1 < kHiddenRows ? fetched_ + 1 : 0;
      }
    }
    __device__ static void copy(uint32_t to, const __nv_bfloat16* from, bool valid) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                   : "memory");
    }

    // A warp takes a row of 256 columns at a time, while the next ones are on their way from memory. One row
    // a turn: unrolled, the code no longer fits the instruction cache next to the scheduler.
    template <ActivationKind kind>
    __device__ void write(const Params& p, const Work& work, int begin, float weights, Element* finished,
                          int warp, int lane) {
      const int column = work.n_tile * kTileN + lane * 8;
      const bool inside = column < p.expert_width;
      const int count = num_own_rows(min(kBlockRows, work.row_end - begin), warp);
      const long first = begin + warp;
      __nv_bfloat16* dhidden = p.dhidden + first * p.hidden_stride + column;
      __nv_bfloat16* weighted = p.weighted + first * p.expert_width + column;
#pragma unroll 1
      for (int index = 0; index < count; ++index) {
        fetch<is_gated(kind)>(p);
        if (ahead_ == kHiddenRows)
          cute::cp_async_wait<kHiddenRows - 1>();
        else
          cute::cp_async_wait<0>();
        const __nv_bfloat16* hidden = ring_ + read_ * 2 * kTileN;
        const Chunk gate{*reinterpret_cast<const uint4*>(hidden)};
        Chunk up{};
        if constexpr (is_gated(kind)) up.bits = *reinterpret_cast<const uint4*>(hidden + kTileN);
        --ahead_;
        read_ = read_ + 1 < kHiddenRows ? read_ + 1 : 0;
        const int row = warp + kEpilogueWarps * index;
        const float weight = __shfl_sync(0xffffffffu, weights, index);
        Chunk dgate, dup, activated;
        const float part = apply<kind>(p.activation, weight, read_finished(finished, row, lane * 8), gate, up,
                                       dgate, dup, activated);
        write_chunk_if(inside, dhidden, dgate);
        if constexpr (is_gated(kind)) write_chunk_if(inside, dhidden + p.expert_width, dup);
        write_chunk_if(inside, weighted, activated);
        // This row of the finished tile has been read: its place keeps the lanes' parts.
        __syncwarp();
        parts_of(finished, row)[lane] = inside ? part : 0.f;
        dhidden += kEpilogueWarps * p.hidden_stride, weighted += kEpilogueWarps * long(p.expert_width);
      }
      __syncwarp();
      if (lane < count) {  // a lane sums a row, each from another bank on
        const float* parts = parts_of(finished, warp + kEpilogueWarps * lane);
        float sum = 0.f;
#pragma unroll 8
        for (int i = 0; i < 32; ++i) sum += parts[(i + lane) % 32];
        p.gate_parts[work.n_tile * p.max_rows + first + kEpilogueWarps * lane] = sum;
      }
    }
    __device__ static float* parts_of(Element* finished, int row) {
      return reinterpret_cast<float*>(finished + row * kTileN);
    }

    // Eight columns of a row; returns their part of the gate weight's gradient.
    template <ActivationKind kind>
    __device__ static float apply(const Activation& activation, float weight, const Chunk& da,
                                  const Chunk& gate, const Chunk& up, Chunk& dgate, Chunk& dup,
                                  Chunk& weighted) {
      float part = 0.f;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 d = da.get(j), g = gate.get(j), u = up.get(j);
        const ActivationGradient low = activate_with_gradient<kind>(activation, g.x, u.x);
        const ActivationGradient high = activate_with_gradient<kind>(activation, g.y, u.y);
        part += d.x * low.value + d.y * high.value;
        const float dx = d.x * weight, dy = d.y * weight;
        dgate.set(j, dx * low.dg, dy * high.dg);
        dup.set(j, dx * low.du, dy * high.du);
        weighted.set(j, weight * low.value, weight * high.value);
      }
      return part;
    }

    float weight_[2], next_weight_[2] = {};   // of the halves of a tile, one row a lane
    __nv_bfloat16* const ring_;               // this lane's chunk of the first row
    Source sources_[4];                       // in order, as many as begin a tile ahead
    int ahead_ = 0, fetched_ = 0, read_ = 0;  // rows in the ring, and places in it
  };
};

template <bool gather>
void multiply_and_activate(const ExpertShape& shape, const ExpertPlan& plan, const HiddenGradient& product,
                           cudaStream_t stream) {
  static_assert(kTileN == kGatePartColumns);
  typename Dhidden<gather>::Params p{};
  set_rows_walk(p, plan, shape.model_width, num_gate_parts(shape.expert_width));
  if constexpr (gather)
    set_gathered(p, shape, plan, product.dy, product.dy_stride, shape.model_width);
  else
    p.map_a = rows_map(shape, product.dy, product.dy_stride, shape.model_width);
  p.row_assignment = plan.row_assignment;
  p.map_b = weights_map(shape, product.down, shape.model_width, shape.expert_width, 64);
  p.activation = product.activation;
  p.expert_width = shape.expert_width;
  p.hidden_stride = product.activation.hidden_width(shape.expert_width);
  p.max_rows = shape.max_rows;
  p.hidden = static_cast<const __nv_bfloat16*>(product.hidden);
  p.gate_weights = product.gate_weights;
  p.dhidden = static_cast<__nv_bfloat16*>(product.dhidden);
  p.weighted = static_cast<__nv_bfloat16*>(product.weighted);
  p.gate_parts = product.gate_parts;
  grouped_gemm<Dhidden<gather>>(p, stream);
}

}  // namespace

void expert_dhidden(const ExpertShape& shape, const ExpertPlan& plan, const HiddenGradient& product,
                    cudaStream_t stream) {
  (product.by_token ? multiply_and_activate<true> : multiply_and_activate<false>)(shape, plan, product,
                                                                                  stream);
}

void multiply_by_token(const ExpertShape& shape, const ExpertPlan& plan, const RowsProduct& product,
                       const CUtensorMap& weights, cudaStream_t stream) {
  Dhidden<true>::Params p{};
  set_rows_walk(p, plan, product.depth, ceil_div(product.width, kTileN));
  set_gathered(p, shape, plan, product.x, product.x_stride, product.depth);
  p.map_b = weights;
  set_bias(p, product.bias, product.width);
  p.expert_width = product.width;
  p.plain = static_cast<__nv_bfloat16*>(product.out);
  grouped_gemm<Dhidden<true>>(p, stream);
}

}  // namespace motley::cuda::sm90
