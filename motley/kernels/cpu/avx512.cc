// AVX-512 without bf16 products: bf16 is widened to fp32 while it is packed.
#include "motley/kernels/cpu/avx512_pack.h"
#include "motley/kernels/cpu/avx512_products.h"
#include "motley/kernels/cpu/elementwise.h"
#include "motley/kernels/cpu/products.h"
#include "motley/kernels/cpu/x86.h"

namespace motley::kernels {
namespace {

constexpr int kWidth = 16;

void dot_rows(DType type, Rows x, int num_rows, const void* w, int64_t w_stride, int64_t columns,
              int64_t depth, float* out, int64_t out_stride) {
  if (type == DType::kFloat32) {
    Avx512Dot<MultiplyFloats>::run(x, num_rows, w, w_stride, columns, depth, out, out_stride);
  } else {
    DotRows<kWidth>::run(type, x, num_rows, w, w_stride, columns, depth, out, out_stride);
  }
}

}  // namespace

const CpuKernels& avx512_kernels() {
  static constexpr CpuKernels table = {
      .name = "avx512",
      .panel_of_bf16 = DType::kFloat32,
      .tile_f32 = Avx512Tile<MultiplyFloats>::run,
      .tile_bf16 = nullptr,
      .pack_columns = Avx512Packing::pack_columns,
      .pack_rows = Avx512Packing::pack_rows,
      .transpose = Avx512Packing::transpose,
      .pack_tile = Avx512Tiles::pack_tile,
      .store_transposed = Avx512Tiles::store_transposed,
      .store = Elementwise<kWidth>::store,
      .convert = Elementwise<kWidth>::convert,
      .dot_rows = dot_rows,
      .activate = Elementwise<kWidth>::activate,
      .activate_backward = Elementwise<kWidth>::activate_backward,
      .weighted_sum = Elementwise<kWidth>::weighted_sum,
  };
  return table;
}

}  // namespace motley::kernels
