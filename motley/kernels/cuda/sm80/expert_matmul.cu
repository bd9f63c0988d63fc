// Rows, gathered by token or in order, times the weights of their experts, plain or transposed.
#include "motley/kernels/cuda/expert_products.h"
#include "motley/kernels/cuda/sm80/gemm_arguments.h"
#include "motley/kernels/cuda/sm80/grouped_gemm.cuh"
#include "motley/kernels/cuda/sm80/result.cuh"

namespace motley::cuda::sm80 {
namespace {

template <class Type, bool major_k>
struct Matmul {
  using T = Type;
  struct Params : RowsParams<T> {
    const T* bias;
    long bias_place_stride;
    T* out;
  };
  static constexpr bool kOuter = false, kMajorK = major_k;

  __device__ static int depth(const Params& p, const Work&) { return p.a.width; }
  __device__ static int num_columns(const Params& p) { return p.b_width; }
  __device__ static int b_step(const Params&) { return 64; }
  __device__ static int b_column(const Params&, int n_tile, int line) { return n_tile * kTileN + line; }
  __device__ static int b_line(const Params&, int column, int) { return column; }
  __device__ static void finish(const Params& p, const Work& work, Sum& sum) {
    const int column = work.n_tile * kTileN + warp_column();
    Pairs bias[2];
    for (int part = 0; part < 2; ++part)
      load_bias(p.bias ? p.bias + work.place * p.bias_place_stride + column + 32 * part : nullptr,
                p.b_width - column - 32 * part, bias[part]);
    for_each_row(sum, [&](const auto& line, int h, int within) {
      const long row = work.row_begin + within;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        Pairs values;
        get_pairs(line, h, part, values);
        add_pairs(values, bias[part]);
        store_pairs(p.out + row * p.b_width + column + 32 * part, row < work.row_end,
                    p.b_width - column - 32 * part, values);
      }
    });
  }
};

template <class T, bool major_k>
void matmul(const ExpertShape& shape, const ExpertPlan& plan, const RowsProduct& product,
            cudaStream_t stream) {
  typename Matmul<T, major_k>::Params p{};
  set_plan(p, shape, plan, ceil_div(product.width, kTileN));
  p.a = {static_cast<const T*>(product.x), product.x_stride, product.depth, product.by_token};
  set_weight(p, product.weight, major_k ? product.depth : product.width, product.width);
  p.bias = static_cast<const T*>(product.bias.data);
  p.bias_place_stride = product.bias.stride;
  p.out = static_cast<T*>(product.out);
  grouped_gemm<Matmul<T, major_k>>(p, stream);
}

}  // namespace

void expert_matmul(const ExpertShape& shape, const ExpertPlan& plan, const RowsProduct& product,
                   cudaStream_t stream) {
  if (shape.max_rows == 0) return;
  with_type(shape.type, [&]<class T>() {
    if (product.transposed)
      matmul<T, true>(shape, plan, product, stream);
    else
      matmul<T, false>(shape, plan, product, stream);
  });
}

}  // namespace motley::cuda::sm80
