// x W_gate_up^T + bias with the activation. Gated: of every 64 columns of a warp the first 32 are gate, the
// others the matching up columns, so that a thread holds both of an element.
#include "motley/kernels/cuda/expert_products.h"
#include "motley/kernels/cuda/sm80/gemm_arguments.h"
#include "motley/kernels/cuda/sm80/grouped_gemm.cuh"
#include "motley/kernels/cuda/sm80/result.cuh"

namespace motley::cuda::sm80 {
namespace {

template <class Type>
struct Up {
  using T = Type;
  struct Params : RowsParams<T> {
    Activation activation;
    bool gated;
    int expert_width;
    const T* bias;
    long bias_place_stride;
    T *hidden, *activated;
  };
  static constexpr bool kOuter = false, kMajorK = true;

  __device__ static int depth(const Params& p, const Work&) { return p.a.width; }
  __device__ static int num_columns(const Params& p) { return p.expert_width; }
  __device__ static int b_step(const Params& p) { return p.gated ? 32 : 64; }
  __device__ static int b_column(const Params& p, int n_tile, int line) {
    return p.gated ? n_tile * (kTileN / 2) + line % 32 : n_tile * kTileN + line;
  }
  __device__ static int b_line(const Params& p, int column, int line) {
    return p.gated && line >= 32 ? p.expert_width + column : column;
  }
  __device__ static void finish(const Params& p, const Work& work, Sum& sum) {
    with_kind(p.activation.kind, [&]<ActivationKind kind>() {
      if constexpr (is_gated(kind)) {
        write<kind>(p, work, work.n_tile * (kTileN / 2) + warp_column() / 2, sum, 0);
      } else {
        const int column = work.n_tile * kTileN + warp_column();
        write<kind>(p, work, column, sum, 0);
        write<kind>(p, work, column + 32, sum, 1);
      }
    });
  }

 private:
  // 32 columns of the activation from part `part` of the sums, and from part 1 if gated.
  template <ActivationKind kind>
  __device__ static void write(const Params& p, const Work& work, int column, Sum& sum, int part) {
    const int left = p.expert_width - column, width = p.activation.hidden_width(p.expert_width);
    Pairs gate_bias, up_bias;
    const T* bias = p.bias ? p.bias + work.place * p.bias_place_stride + column : nullptr;
    load_bias(bias, left, gate_bias);
    if constexpr (is_gated(kind)) load_bias(bias ? bias + p.expert_width : nullptr, left, up_bias);
    for_each_row(sum, [&](const auto& line, int h, int within) {
      const long row = work.row_begin + within;
      const bool valid = row < work.row_end;
      T* hidden = p.hidden ? p.hidden + row * width + column : nullptr;
      Pairs gate, up, out;
      get_pairs(line, h, is_gated(kind) ? 0 : part, gate);
      finish_pairs(gate, gate_bias, hidden, valid, left);
      if constexpr (is_gated(kind)) {
        get_pairs(line, h, 1, up);
        finish_pairs(up, up_bias, hidden ? hidden + p.expert_width : nullptr, valid, left);
      }
#pragma unroll
      for (int j = 0; j < kPairs; ++j)
        out[j] = {activate<kind>(p.activation, gate[j].x, is_gated(kind) ? up[j].x : 0.f),
                  activate<kind>(p.activation, gate[j].y, is_gated(kind) ? up[j].y : 0.f)};
      store_pairs(p.activated + row * p.expert_width + column, valid, left, out);
    });
  }
  // The activation is applied to what is kept, so that backward sees the same values.
  __device__ static void finish_pairs(Pairs& values, const Pairs& bias, T* hidden, bool valid, int left) {
    add_pairs(values, bias);
#pragma unroll
    for (int j = 0; j < kPairs; ++j) values[j] = round_pair<T>(values[j]);
    if (hidden) store_pairs(hidden, valid, left, values);
  }
};

}  // namespace

void expert_up(const ExpertShape& shape, const ExpertPlan& plan, const UpProduct& product,
               cudaStream_t stream) {
  if (shape.max_rows == 0) return;
  const bool gated = product.activation.gated();
  with_type(shape.type, [&]<class T>() {
    typename Up<T>::Params p{};
    set_plan(p, shape, plan, ceil_div(shape.expert_width, gated ? kTileN / 2 : kTileN));
    p.a = {static_cast<const T*>(product.x), product.x_stride, shape.model_width, product.by_token};
    set_weight(p, product.gate_up, shape.model_width, product.activation.hidden_width(shape.expert_width));
    p.activation = product.activation;
    p.gated = gated;
    p.expert_width = shape.expert_width;
    p.bias = static_cast<const T*>(product.bias.data);
    p.bias_place_stride = product.bias.stride;
    p.hidden = static_cast<T*>(product.hidden);
    p.activated = static_cast<T*>(product.activated);
    grouped_gemm<Up<T>>(p, stream);
  });
}

}  // namespace motley::cuda::sm80
