#include "motley/kernels/cpu/multiply.h"

#include <algorithm>

namespace motley::kernels {

void multiply_rows(const CpuKernels& kernels, const Panel& panel, DType type, Rows rows, int64_t num_rows,
                   float* c, bool accumulate, void* scratch) {
  const int64_t block = depth_block(panel.type);
  const auto tile = kernels.tile(panel.type);
  if (panel.depth == 0 && !accumulate) std::fill(c, c + num_rows * panel.lanes(), 0.0f);
  for (int64_t k = 0; k < panel.depth; k += block) {
    const int64_t depth = std::min(block, panel.depth - k);
    for (int64_t i = 0; i < num_rows; i += kTileRows) {
      const int count = static_cast<int>(std::min<int64_t>(kTileRows, num_rows - i));
      const void* at[kTileRows];
      for (int j = 0; j < count; ++j) {
        at[j] = offset(rows[i + j], type, k);
        if (type == panel.type) continue;
        void* converted = offset(scratch, panel.type, j * block);
        kernels.convert(type, at[j], depth, panel.type, converted);
        at[j] = converted;
      }
      const void* next[kTileRows];
      const bool more = type == panel.type && i + kTileRows + count <= num_rows;
      for (int j = 0; j < count; ++j) next[j] = more ? offset(rows[i + kTileRows + j], type, k) : at[j];
      tile(panel.at(k), panel.vectors, at, next, count, depth, c + i * panel.lanes(), accumulate || k > 0);
    }
  }
}

void pack_matrix(const CpuKernels& kernels, DType type, const void* matrix, int64_t stride, int64_t first,
                 int count, const Panel& panel) {
  constexpr int64_t kChunk = 256;
  const void* rows[kChunk];
  for (int64_t k = 0; k < panel.depth; k += kChunk) {
    const int64_t depth = std::min(kChunk, panel.depth - k);
    for (int64_t i = 0; i < depth; ++i) rows[i] = offset(matrix, type, (k + i) * stride);
    kernels.pack_rows(type, rows, depth, first, count, panel.type, panel.vectors, panel.at(k));
  }
}

}  // namespace motley::kernels
