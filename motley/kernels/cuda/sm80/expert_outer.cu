// Weight gradients: per expert, the outer product of two operands by row, one of them gathered by token.
#include "motley/kernels/cuda/expert_products.h"
#include "motley/kernels/cuda/sm80/gemm_arguments.h"
#include "motley/kernels/cuda/sm80/grouped_gemm.cuh"
#include "motley/kernels/cuda/sm80/result.cuh"

namespace motley::cuda::sm80 {
namespace {

template <class Type>
struct Outer {
  using T = Type;
  struct Params : OuterParams<T> {
    void* out;
    long out_place_stride;
    bool fp32, accumulate;
  };
  static constexpr bool kOuter = true, kMajorK = false;

  __device__ static int depth(const Params&, const Work& work) { return work.row_end - work.row_begin; }
  __device__ static void finish(const Params& p, const Work& work, Sum& sum) {
    if (p.fp32)
      write(p, work, sum, static_cast<float*>(p.out));
    else
      write(p, work, sum, static_cast<T*>(p.out));
  }

 private:
  template <class Out>
  __device__ static void write(const Params& p, const Work& work, Sum& sum, Out* out) {
    if (p.accumulate && work.row_begin == work.row_end) return;
    out += work.place * p.out_place_stride;
    const int column = work.n_tile * kTileN + warp_column();
    for_each_row(sum, [&](const auto& line, int h, int within) {
      const long row = work.m_begin + within;
      const bool valid = row < p.a.width;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        Out* to = out + row * p.b.width + column + 32 * part;
        const int left = p.b.width - column - 32 * part;
        Pairs values;
        get_pairs(line, h, part, values);
        if (p.accumulate) {
          RawPairs<Out> raw;
          Pairs before;
          read_pairs<false>(to, valid, left, raw);
          get_pairs(raw, before);
          add_pairs(values, before);
        }
        store_pairs(to, valid, left, values);
      }
    });
  }
};

}  // namespace

void expert_outer(const ExpertShape& shape, const ExpertPlan& plan, const OuterProduct& product,
                  cudaStream_t stream) {
  with_type(shape.type, [&]<class T>() {
    typename Outer<T>::Params p{};
    p.a = {static_cast<const T*>(product.by_row), product.row_width, product.row_width, false};
    p.b = {static_cast<const T*>(product.gathered), product.gathered_stride, product.gathered_width,
           product.by_token};
    if (product.gathered_first) std::swap(p.a, p.b);
    set_plan(p, shape, plan, ceil_div(p.b.width, kTileN));
    p.num_m_tiles = ceil_div(p.a.width, kTileM);
    p.out = product.out.data;
    p.out_place_stride = product.out.stride;
    p.fp32 = product.out.fp32;
    p.accumulate = product.out.accumulate;
    grouped_gemm<Outer<T>>(p, stream);
  });
}

}  // namespace motley::cuda::sm80
