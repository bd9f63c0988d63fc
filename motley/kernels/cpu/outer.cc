#include "motley/kernels/cpu/outer.h"

#include <algorithm>

namespace motley::kernels {
namespace {

constexpr int64_t kDepth = 512;  // rows packed at a time

}  // namespace

int64_t outer_scratch_bytes() {
  return kOuterRows * kDepth * 4 + panel_bytes(DType::kFloat32, kDepth, kMaxVectors) +
         kOuterRows * kOuterColumns * 4 + kMultiplyScratch;
}

void outer_block(const CpuKernels& kernels, const OuterBlock& block, void* scratch) {
  const DType type = block.a.type;
  const DType panel_type = kernels.panel_type(type);
  Arena arena(scratch);
  void* turned = arena.take(kOuterRows * kDepth * 4);
  void* packed = arena.take(panel_bytes(DType::kFloat32, kDepth, kMaxVectors));
  float* sums = arena.take_floats(kOuterRows * kOuterColumns);  // one tile of lanes after another
  const int64_t num_rows = block.last - block.first;
  for (int64_t r = 0; r == 0 || r < num_rows; r += kDepth) {
    const int64_t depth = std::min(kDepth, num_rows - r);
    const void* a_rows[kDepth];
    const void* b_rows[kDepth];
    for (int64_t i = 0; i < depth; ++i) {
      a_rows[i] = block.a.row(block.first + r + i);
      b_rows[i] = block.b.row(block.first + r + i);
    }
    kernels.transpose(type, a_rows, depth, block.m, static_cast<int>(block.num_m), panel_type, kDepth,
                      turned);
    const void* m_rows[kOuterRows];
    for (int64_t i = 0; i < block.num_m; ++i) m_rows[i] = offset(turned, panel_type, i * kDepth);
    for (int64_t j = 0; j < block.num_j; j += kMaxLanes) {
      const int count = static_cast<int>(std::min<int64_t>(kMaxLanes, block.num_j - j));
      const Panel panel{panel_type, packed, depth, vectors_for(count)};
      kernels.pack_rows(type, b_rows, depth, block.j + j, count, panel_type, panel.vectors, packed);
      float* c = sums + j * kOuterRows;
      multiply_rows(kernels, panel, panel_type, m_rows, block.num_m, c, r > 0, nullptr);
      if (r + depth < num_rows) continue;
      for (int64_t i = 0; i < block.num_m; ++i) {
        void* to = offset(block.out, block.out_type, (block.m + i) * block.out_stride + block.j + j);
        kernels.store(c + i * panel.lanes(), count, block.out_type, to, block.accumulate);
      }
    }
  }
}

}  // namespace motley::kernels
