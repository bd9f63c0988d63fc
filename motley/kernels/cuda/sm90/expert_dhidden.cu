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
    CUtensorMap map_hidden;  // [max_rows, gate and up, F]
    const float* gate_weights;
    __nv_bfloat16 *dhidden, *weighted;
    float* gate_parts;
    __nv_bfloat16* plain;  // dA' itself and nothing else, if not null
  };
  // Kept hidden rows, 256 columns of gate and of up, on their way to each warp of the epilogue.
  static constexpr int kRows = 2, kSlots = 3, kSlotSize = kRows * 2 * kTileN;
  struct OfEpilogue {
    __nv_bfloat16 hidden[kEpilogueWarps][kSlots][kSlotSize];
    uint64_t arrived[kEpilogueWarps][kSlots];
  };
  using Storage = SharedStorage<3, OfEpilogue>;
  using Walk = RowsWalk;
  using Gather = std::conditional_t<gather, RowGather, NoGather>;
  static constexpr bool kGather = gather, kOuter = false, kTransposed = false;
  static constexpr auto kMajorA = cute::GMMA::Major::K, kMajorB = cute::GMMA::Major::MN;

  __device__ static int b_begin(const Params&, int n_tile, int rank) {
    return n_tile * kTileN + rank * (kTileN / 2);
  }

  // The rows of a block that warp `warp` finishes: pairs, every third one. Row number i of them:
  __device__ static int own_row(int warp, int i) {
    return (warp + i / kRows * kEpilogueWarps) * kRows + i % kRows;
  }

  // Brings them by TMA, some pairs ahead of the epilogue, walking the tiles by itself.
  class HiddenFetch {
   public:
    __device__ HiddenFetch(const Params& p, OfEpilogue& to, int warp, int lane, int rank)
        : p_(p),
          hidden_(to.hidden[warp][0]),
          arrived_(to.arrived[warp]),
          warp_(warp),
          rank_(rank),
          issues_(lane == 0),
          walk_(p) {
      if (p.plain) return;
      if (issues_) {
        for (int i = 0; i < kSlots; ++i) Barrier::init(&arrived_[i], 1);
        cutlass::arch::fence_barrier_init();
      }
      __syncwarp();
      find_block();
      for (int i = 0; i < kSlots; ++i) issue();
    }
    // The next pair into the slot after the last, which all lanes have read.
    __device__ void issue() {
      if (!walk_.valid()) return;
      if (issues_) {
        uint64_t* arrived = &arrived_[slot_.index];
        Barrier::arrive_and_expect_tx(arrived, (p_.activation.gated() ? 2 : 1) * kRows * kTileN * 2);
        cute::SM90_TMA_LOAD_3D::copy(
            &p_.map_hidden, arrived, static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_FIRST),
            hidden_ + slot_.index * kSlotSize, walk_.work().n_tile * kTileN, 0, row_);
      }
      slot_.advance();
      row_ += kEpilogueWarps * kRows;
      if (row_ >= end_) {
        next_block();
        find_block();
      }
    }

   private:
    __device__ void next_block() {
      half_ ^= 1;
      if (half_ == 0) walk_.advance();
    }
    __device__ void find_block() {
      for (; walk_.valid(); next_block()) {
        const int begin = walk_.block_begin(half_, rank_);
        row_ = begin + own_row(warp_, 0);
        end_ = min(begin + kBlockRows, walk_.work().row_end);
        if (row_ < end_) return;
      }
    }

    const Params& p_;
    __nv_bfloat16* const hidden_;
    uint64_t* const arrived_;
    const int warp_, rank_;
    const bool issues_;
    RowsWalk walk_;
    int half_ = 0, row_ = 0, end_ = 0;
    Ring<kSlots> slot_;
  };

  class Epilogue {
   public:
    __device__ Epilogue(const Params& p, Storage& shared, int warp, int lane, int rank)
        : hidden_(shared.of_epilogue.hidden[warp][0] + lane * 8),
          arrived_(shared.of_epilogue.arrived[warp]),
          fetch_(p, shared.of_epilogue, warp, lane, rank) {}

    __device__ void start_tile() { weight_[0] = next_weight_[0], weight_[1] = next_weight_[1]; }

    // A tile ahead: the gate weights of this warp's rows, one a lane.
    __device__ void prepare(const Params& p, const Work& work, int begin, int half, int warp, int lane) {
      if (p.plain) return;
      const int row = begin + own_row(warp, lane);
      const bool mine = row < min(begin + kBlockRows, work.row_end);
      next_weight_[half] = mine ? __ldg(p.gate_weights + __ldg(p.row_assignment + row)) : 0.f;
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
    // A warp takes a pair of rows of 256 columns at a time. One pair a turn: with more the code no longer
    // fits the instruction cache next to the scheduler; with single rows a store waits for the one before to
    // read its registers.
    template <ActivationKind kind>
    __device__ void write(const Params& p, const Work& work, int begin, float weights, Element* finished,
                          int warp, int lane) {
      constexpr int kWidth = (is_gated(kind) ? 2 : 1) * kTileN;
      const int column = work.n_tile * kTileN + lane * 8;
      const bool inside = column < p.expert_width;
      const int rows = min(kBlockRows, work.row_end - begin);
      const long first = begin + own_row(warp, 0);
      __nv_bfloat16* dhidden = p.dhidden + first * p.hidden_stride + column;
      __nv_bfloat16* weighted = p.weighted + first * p.expert_width + column;
#pragma unroll 1
      for (int i = 0; own_row(warp, i) < rows; i += kRows) {
        const int row = own_row(warp, i);
        wait(arrived_[slot_.index], slot_.phase);
        const __nv_bfloat16* hidden = hidden_ + slot_.index * kSlotSize;
        slot_.advance();
        Chunk da[kRows], gate[kRows], up[kRows] = {}, dgate[kRows], dup[kRows], activated[kRows];
        float part[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          gate[r].bits = *reinterpret_cast<const uint4*>(hidden + r * kWidth);
          if constexpr (is_gated(kind))
            up[r].bits = *reinterpret_cast<const uint4*>(hidden + r * kWidth + kTileN);
          da[r] = read_finished(finished, row + r, lane * 8);
        }
        __syncwarp();
        fetch_.issue();
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          part[r] = apply<kind>(p.activation, __shfl_sync(0xffffffffu, weights, i + r), da[r], gate[r], up[r],
                                dgate[r], dup[r], activated[r]);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const bool valid = inside && row + r < rows;
          write_chunk_if(valid, dhidden + r * p.hidden_stride, dgate[r]);
          if constexpr (is_gated(kind))
            write_chunk_if(valid, dhidden + r * p.hidden_stride + p.expert_width, dup[r]);
          write_chunk_if(valid, weighted + r * long(p.expert_width), activated[r]);
          // This row of the finished tile has been read: its place keeps the lanes' parts.
          parts_of(finished, row + r)[lane] = inside ? part[r] : 0.f;
        }
        dhidden += kEpilogueWarps * kRows * p.hidden_stride;
        weighted += kEpilogueWarps * kRows * long(p.expert_width);
      }
      __syncwarp();
      const int row = own_row(warp, lane);
      if (row < rows) {  // a lane sums a row, each from another bank on
        const float* parts = parts_of(finished, row);
        float sum = 0.f;
#pragma unroll 8
        for (int i = 0; i < 32; ++i) sum += parts[(i + lane) % 32];
        p.gate_parts[work.n_tile * p.max_rows + begin + row] = sum;
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

    float weight_[2], next_weight_[2] = {};  // of the halves of a tile, one row a lane
    const __nv_bfloat16* const hidden_;      // this lane's chunk of the first slot
    uint64_t* const arrived_;
    HiddenFetch fetch_;
    Ring<kSlots> slot_;
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
  const long F = shape.expert_width, parts = p.hidden_stride / F;
  p.map_hidden = make_straight_map(product.hidden, {F, parts, shape.max_rows}, {F, p.hidden_stride},
                                   {kTileN, static_cast<int>(parts), Dhidden<gather>::kRows});
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
