#include "motley/kernels/cpu/outer.h"

#include <algorithm>

namespace motley::kernels {
namespace {

constexpr int64_t kDepth = kOuterDepth;
constexpr int64_t kStride = kDepth + 32;  // of a turned row: powers of two would share cache sets

}  // namespace

int64_t outer_scratch_bytes() {
  return kOuterRows * kStride * 4 + panel_bytes(DType::kFloat32, kDepth, kMaxVectors) +
         kOuterRows * outer_columns(kDepth + 1) * 4;
}

void outer_block(const CpuKernels& kernels, const OuterBlock& block, void* scratch) {
  const DType type = block.a.type;
  const DType panel_type = kernels.panel_type(type);
  Arena arena(scratch);
  void* turned = arena.take(kOuterRows * kStride * 4);
  void* packed = arena.take(panel_bytes(DType::kFloat32, kDepth, kMaxVectors));
  float* sums = arena.take_floats(kOuterRows * outer_columns(kDepth + 1));  // one tile of lanes after another
  const int64_t num_rows = block.last - block.first;
  const int tile_rows = kernels.tile_rows(panel_type);
  for (int64_t r = 0; r == 0 || r < num_rows; r += kDepth) {
    const int64_t depth = std::min(kDepth, num_rows - r);
    const void* a_rows[kDepth];
    const void* b_rows[kDepth];
    for (int64_t i = 0; i < depth; ++i) {
      a_rows[i] = block.a.row(block.first + r + i);
      b_rows[i] = block.b.row(block.first + r + i);
    }
    kernels.transpose(type, a_rows, depth, block.m, static_cast<int>(block.num_m), panel_type, kStride,
                      turned);
    const void* m_rows[kOuterRows];
    for (int64_t i = 0; i < block.num_m; ++i) m_rows[i] = offset(turned, panel_type, i * kStride);
    for (int64_t j = 0; j < block.num_j; j += kMaxLanes) {
      const int count = static_cast<int>(std::min<int64_t>(kMaxLanes, block.num_j - j));
      const Panel panel = kernels.panel(panel_type, packed, depth, vectors_for(count));
      kernels.pack_rows(type, b_rows, depth, block.j + j, count, panel);
      const bool last = r + depth >= num_rows;
      // A tile's share of the rows of b is fetched for the next panel.
      const int64_t after = std::min<int64_t>(kMaxLanes, block.num_j - j - count);
      const int64_t share = (depth * tile_rows + block.num_m - 1) / block.num_m;
      int64_t fetched = after > 0 ? 0 : depth;
      for (int64_t i = 0; i < block.num_m; i += tile_rows) {
        const int rows = static_cast<int>(std::min<int64_t>(tile_rows, block.num_m - i));
        void* to[kMaxTileRows];
        for (int n = 0; n < rows; ++n) {
          to[n] = offset(block.out, block.out_type, (block.m + i + n) * block.out_stride + block.j + j);
        }
        if (last) fetch_for_writing(to, rows, count * size_of(block.out_type));
        for (const int64_t end = std::min(depth, fetched + share); fetched < end; ++fetched) {
          fetch(offset(b_rows[fetched], type, block.j + j + count), after * size_of(type));
        }
        float* c = num_rows > kDepth ? sums + j * kOuterRows + i * panel.lanes() : sums;
        Tile tile{panel, m_rows + i, rows, depth, m_rows + i, 0, 0, c};
        tile.from_c = r > 0;
        tile.out = last ? to : nullptr;
        tile.out_type = block.out_type;
        tile.count = count;
        tile.accumulate = block.accumulate;
        kernels.tile(panel_type)(tile);
      }
    }
  }
}

}  // namespace motley::kernels
