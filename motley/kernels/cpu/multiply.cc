#include "motley/kernels/cpu/multiply.h"

#include <algorithm>

namespace motley::kernels {

Upcoming::Upcoming(const void* matrix, int64_t row_bytes, int64_t num_rows, int64_t bytes)
    : at_(static_cast<const std::byte*>(matrix)),
      row_bytes_(row_bytes),
      rows_left_(num_rows),
      lines_((bytes + 63) / 64) {}

int Upcoming::take(int num_rows, int64_t steps, const void** next, int64_t* next_step) {
  const int lines = (num_rows + products_ - 1) / products_;
  const int64_t rows_a_step = lines / lines_;
  if (rows_left_ <= 0 || rows_a_step == 0) return 0;
  for (int i = 0; i < lines; ++i) {
    const int64_t line = i < rows_a_step * lines_ ? i : 0;
    next[i] = at_ + line / lines_ * row_bytes_ + line % lines_ * 64;
  }
  *next_step = rows_a_step * row_bytes_;
  at_ += steps * *next_step;
  rows_left_ -= steps * rows_a_step;
  return lines;
}

void multiply_rows(const CpuKernels& kernels, const Panel& panel, DType type, Rows rows, int64_t num_rows,
                   float* c, bool accumulate, void* scratch, Upcoming* upcoming, const RowOutput* output) {
  const int64_t block = depth_block(panel.type);
  const auto run = kernels.tile(panel.type);
  const int most = kernels.tile_rows(panel.type);
  for (int64_t k = 0; k == 0 || k < panel.depth; k += block) {
    const int64_t depth = std::min(block, panel.depth - k);
    for (int64_t i = 0; i < num_rows; i += most) {
      const int count = static_cast<int>(std::min<int64_t>(most, num_rows - i));
      const void* at[kMaxTileRows];
      const void* next[kMaxTileRows];
      for (int j = 0; j < count; ++j) {
        at[j] = offset(rows[i + j], type, k);
        next[j] = at[j];
        if (type == panel.type) continue;
        void* converted = offset(scratch, panel.type, j * block);
        kernels.convert(type, at[j], depth, panel.type, converted);
        at[j] = converted;
      }
      Tile tile{panel.from(k), at, count, depth, next, 0, 0, c + i * panel.lanes()};
      tile.from_c = accumulate || k > 0;
      if (output && k + depth == panel.depth) {
        tile.out = output->out + i;
        tile.out_type = output->type;
        tile.count = output->count;
        fetch_for_writing(tile.out, count, output->count * size_of(output->type));
      }
      if (upcoming)
        tile.num_next = upcoming->take(count, depth * size_of(panel.type) / 64, next, &tile.next_step);
      run(tile);
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
    kernels.pack_rows(type, rows, depth, first, count, panel.from(k));
  }
}

}  // namespace motley::kernels
