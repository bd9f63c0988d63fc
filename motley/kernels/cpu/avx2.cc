// AVX2 with FMA: bf16 is widened to fp32 while it is packed.
#include "motley/kernels/cpu/elementwise.h"
#include "motley/kernels/cpu/products.h"
#include "motley/kernels/cpu/vector_packing.h"
#include "motley/kernels/cpu/x86.h"

namespace motley::kernels {
namespace {
constexpr int kWidth = 8;
}

const CpuKernels& avx2_kernels() {
  static constexpr CpuKernels table = {
      .name = "avx2",
      .panel_of_bf16 = DType::kFloat32,
      .tile_f32 = TileF32<kWidth, 2>::run,
      .tile_bf16 = nullptr,
      .pack_columns = VectorPacking<kWidth>::pack_columns,
      .pack_rows = VectorPacking<kWidth>::pack_rows,
      .transpose = VectorPacking<kWidth>::transpose,
      .pack_tile = TilePacking<kWidth>::pack_tile,
      .store_transposed = VectorPacking<kWidth>::store_transposed,
      .store = Elementwise<kWidth>::store,
      .convert = Elementwise<kWidth>::convert,
      .dot_rows = DotRows<kWidth>::run,
      .activate = Elementwise<kWidth>::activate,
      .activate_backward = Elementwise<kWidth>::activate_backward,
      .rms_norm = Elementwise<kWidth>::rms_norm,
      .rms_norm_backward = Elementwise<kWidth>::rms_norm_backward,
      .rotate = Elementwise<kWidth>::rotate,
      .weighted_sum = Elementwise<kWidth>::weighted_sum,
  };
  return table;
}

}  // namespace motley::kernels
