// The table that all AVX-512 families begin with: bf16 is widened to fp32 while it is packed. See simd.h for
// the anonymous namespace.
#pragma once

#include "motley/kernels/cpu/avx512_dot.h"
#include "motley/kernels/cpu/avx512_pack.h"
#include "motley/kernels/cpu/avx512_products.h"
#include "motley/kernels/cpu/elementwise.h"
#include "motley/kernels/cpu/products.h"

namespace motley::kernels {
namespace {

inline void dot_rows_floats(DType type, Rows x, int num_rows, const DotProduct& product) {
  if (type == DType::kFloat32) {
    Avx512Dot<MultiplyFloats, RowOrder::kSideBySide>::run(x, num_rows, product);
  } else {
    DotRows<16>::run(type, x, num_rows, product);
  }
}

constexpr CpuKernels avx512_table() {
  return {
      .name = "avx512",
      .panel_of_bf16 = DType::kFloat32,
      .tile_f32 = Avx512Tile<MultiplyFloats>::run,
      .tile_bf16 = nullptr,
      .pack_columns = Avx512Packing::pack_columns,
      .pack_rows = Avx512Packing::pack_rows,
      .transpose = Avx512Packing::transpose,
      .pack_tile = Avx512Tiles::pack_tile,
      .store_transposed = Avx512Tiles::store_transposed,
      .store = Elementwise<16>::store,
      .convert = Elementwise<16>::convert,
      .dot_rows = dot_rows_floats,
      .activate = Elementwise<16>::activate,
      .activate_backward = Elementwise<16>::activate_backward,
      .rms_norm = Elementwise<16>::rms_norm,
      .rms_norm_backward = Elementwise<16>::rms_norm_backward,
      .rotate = Elementwise<16>::rotate,
      .weighted_sum = Elementwise<16>::weighted_sum,
  };
}

}  // namespace
}  // namespace motley::kernels
