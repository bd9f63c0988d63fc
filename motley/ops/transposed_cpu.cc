#include "motley/ops/transposed_cpu.h"

#include <algorithm>

#include "motley/kernels/cpu/families.h"

namespace motley::ops {

using kernels::Arena;
using kernels::kMaxLanes;

void run_transposed(const std::vector<RowRange>& ranges, const TransposedProduct& product) {
  const auto& cpu = kernels::cpu_kernels();
  const int64_t depth = product.weight->size(1);
  const int64_t columns = product.weight->size(2);
  const int64_t panels = (columns + kMaxLanes - 1) / kMaxLanes;
  const auto panel_type = cpu.panel_type(product.rows.type);
  const int64_t panel_size = kernels::panel_bytes(panel_type, depth, kernels::kMaxVectors);
  const int64_t scratch_bytes =
      Arena::rounded(panel_size) + kernels::kMultiplyScratch + kTransposedRows * kMaxLanes * 4;
  run_tasks(static_cast<int64_t>(ranges.size()) * panels, scratch_bytes, [&](int64_t task, void* scratch) {
    const RowRange& range = ranges[task / panels];
    const int64_t first = task % panels * kMaxLanes;
    const int count = static_cast<int>(std::min<int64_t>(kMaxLanes, columns - first));
    Arena arena(scratch);
    const kernels::Panel panel{panel_type, arena.take(panel_size), depth, kernels::vectors_for(count)};
    void* converted = arena.take(kernels::kMultiplyScratch);
    float* c = arena.take_floats(kTransposedRows * kMaxLanes);
    kernels::pack_matrix(cpu, product.rows.type, place_data(*product.weight, range.place), columns, first,
                         count, panel);
    const void* rows[kTransposedRows];
    for (int64_t i = 0; i < range.count; ++i) rows[i] = product.rows.row(range.first + i);
    kernels::multiply_rows(cpu, panel, product.rows.type, rows, range.count, c, false, converted);
    product.finish(range, first, count, c, panel.lanes());
  });
}

}  // namespace motley::ops
