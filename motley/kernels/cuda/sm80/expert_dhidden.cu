// Backward through down projection and activation: dy W_down, then from the kept hidden the activation
// again, its gradient and the gate weight's, so that neither A nor output rows are kept.
#include "motley/kernels/cuda/expert_products.h"
#include "motley/kernels/cuda/sm80/gemm_arguments.h"
#include "motley/kernels/cuda/sm80/grouped_gemm.cuh"
#include "motley/kernels/cuda/sm80/result.cuh"

namespace motley::cuda::sm80 {
namespace {

static_assert(kTileN == kGatePartColumns);

template <class Type>
struct Dhidden {
  using T = Type;
  struct Params : RowsParams<T> {
    Activation activation;
    int expert_width;
    long max_rows;
    const T* hidden;
    const float* gate_weights;
    T *dhidden, *weighted;
    float* gate_parts;
  };
  static constexpr bool kOuter = false, kMajorK = false;

  __device__ static int depth(const Params& p, const Work&) { return p.a.width; }
  __device__ static void finish(const Params& p, const Work& work, Sum& sum) {
    __shared__ float parts[kTileN / kWarpTile][kTileM];  // of each warp's columns
    RoundedSum<T> da;
    round_sum<T>(sum, da);
    with_kind(p.activation.kind, [&]<ActivationKind kind>() { write<kind>(p, work, da, parts); });
    __syncthreads();
    const int row = threadIdx.x;
    if (row >= kTileM || work.row_begin + row >= work.row_end) return;
    float part = 0.f;
    for (const auto& columns : parts) part += columns[row];
    p.gate_parts[work.n_tile * p.max_rows + work.row_begin + row] = part;
  }

 private:
  // What the finish of a row reads; read while the row before the last is finished.
  struct RowInput {
    RawPairs<T> gate[2], up[2];
    float weight;
  };

  template <ActivationKind kind>
  __device__ static void write(const Params& p, const Work& work, RoundedSum<T>& sum,
                               float (&parts)[kTileN / kWarpTile][kTileM]) {
    const int width = p.activation.hidden_width(p.expert_width);
    const int first_column = work.n_tile * kTileN + warp_column();
    RowInput ahead[2];
    int assignment[2];  // of the row after the one ahead
    const auto look_up = [&](int within, int h) {
      assignment[h] = __ldg(p.row_assignment + min(work.row_begin + within, work.row_end - 1));
    };
    const auto read = [&](int within, int h) {
      const long row = work.row_begin + within;
      const bool valid = row < work.row_end && within < warp_row() + kWarpTile;
      ahead[h].weight = __ldg(p.gate_weights + assignment[h]);
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int column = first_column + part * 32, left = p.expert_width - column;
        const T* hidden = p.hidden + row * width + column;
        read_pairs<true>(hidden, valid, left, ahead[h].gate[part]);
        if constexpr (is_gated(kind))
          read_pairs<true>(hidden + p.expert_width, valid, left, ahead[h].up[part]);
      }
      look_up(within + 16, h);
    };
    for (int h = 0; h < 2; ++h) look_up(warp_row() + 8 * h, h);
    for (int h = 0; h < 2; ++h) read(warp_row() + 8 * h, h);
    for_each_row(sum, [&](const auto& line, int h, int within) {
      const RowInput input = ahead[h];
      read(within + 16, h);
      float part = 0.f;
#pragma unroll
      for (int i = 0; i < 2; ++i)
        part += write_pairs<kind>(p, work, work.row_begin + within, first_column + i * 32, line, h, i, input);
      part += __shfl_xor_sync(kAllLanes, part, 1);
      part += __shfl_xor_sync(kAllLanes, part, 2);
      if (threadIdx.x % 4 == 0) parts[warp_column() / kWarpTile][within] = part;
    });
  }

  // Returns this thread's part of the gate weight's gradient.
  template <ActivationKind kind>
  __device__ static float write_pairs(const Params& p, const Work& work, long row, int column,
                                      const typename PairOf<T>::Type (&line)[kTilesN][2], int h, int columns,
                                      const RowInput& input) {
    const int width = p.activation.hidden_width(p.expert_width), left = p.expert_width - column;
    const bool valid = row < work.row_end;
    float part = 0.f;
    Pairs da, gate, up, dgate, dup, weighted;
    get_rounded<T>(line, h, columns, da);
    get_pairs(input.gate[columns], gate);
    if constexpr (is_gated(kind)) get_pairs(input.up[columns], up);
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      const float2 u = is_gated(kind) ? up[j] : float2{};
      const ActivationGradient x = activate_with_gradient<kind>(p.activation, gate[j].x, u.x);
      const ActivationGradient y = activate_with_gradient<kind>(p.activation, gate[j].y, u.y);
      part += da[j].x * x.value + da[j].y * y.value;
      const float dx = input.weight * da[j].x, dy = input.weight * da[j].y;
      dgate[j] = {dx * x.dg, dy * y.dg};
      dup[j] = {dx * x.du, dy * y.du};
      weighted[j] = {input.weight * x.value, input.weight * y.value};
    }
    T* dhidden = p.dhidden + row * width + column;
    store_pairs(dhidden, valid, left, dgate);
    if constexpr (is_gated(kind)) store_pairs(dhidden + p.expert_width, valid, left, dup);
    store_pairs(p.weighted + row * p.expert_width + column, valid, left, weighted);
    return part;
  }
};

}  // namespace

void expert_dhidden(const ExpertShape& shape, const ExpertPlan& plan, const HiddenGradient& product,
                    cudaStream_t stream) {
  if (shape.max_rows == 0) return;
  with_type(shape.type, [&]<class T>() {
    typename Dhidden<T>::Params p{};
    set_plan(p, shape, plan, ceil_div(shape.expert_width, kTileN));
    p.a = {static_cast<const T*>(product.dy), product.dy_stride, shape.model_width, product.by_token};
    set_weight(p, product.down, shape.expert_width, shape.expert_width);
    p.activation = product.activation;
    p.expert_width = shape.expert_width;
    p.max_rows = shape.max_rows;
    p.hidden = static_cast<const T*>(product.hidden);
    p.gate_weights = product.gate_weights;
    p.dhidden = static_cast<T*>(product.dhidden);
    p.weighted = static_cast<T*>(product.weighted);
    p.gate_parts = product.gate_parts;
    grouped_gemm<Dhidden<T>>(p, stream);
  });
}

}  // namespace motley::cuda::sm80
