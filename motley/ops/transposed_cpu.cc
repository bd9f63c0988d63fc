#include "motley/ops/transposed_cpu.h"

#include <algorithm>
#include <cstring>

#include "motley/kernels/cpu/families.h"

namespace motley::ops {

using kernels::Arena;
using kernels::kMaxLanes;

namespace {
// Least columns of a task: while one panel of them is used, the next is fetched.
constexpr int64_t kPart = 4 * kMaxLanes;

void start_from_bias(const kernels::CpuKernels& cpu, kernels::DType type, const void* bias, int count,
                     int lanes, const RowRange& range, float* c) {
  float wide[kMaxLanes] = {};
  cpu.convert(type, bias, count, kernels::DType::kFloat32, wide);
  for (int64_t i = 0; i < range.count; ++i) std::copy(wide, wide + lanes, c + i * lanes);
}

}  // namespace

void run_transposed(const std::vector<RowRange>& ranges, const TransposedProduct& product) {
  const auto& cpu = kernels::cpu_kernels();
  const auto type = product.rows.type;
  const int64_t depth = product.weight->size(1);
  const int64_t columns = product.weight->size(2);
  // Tasks begin with a panel, so that panels are the same however many tasks there are.
  const int64_t wanted = column_parts(static_cast<int64_t>(ranges.size()), columns, kPart);
  const int64_t width =
      std::max<int64_t>(1, (columns + wanted * kMaxLanes - 1) / (wanted * kMaxLanes)) * kMaxLanes;
  const int64_t parts = (columns + width - 1) / width;
  const auto panel_type = cpu.panel_type(type);
  const int64_t panel_size = kernels::panel_bytes(panel_type, depth, kernels::kMaxVectors);
  // Gathered rows are copied where the family wants them equally spaced; one cache line apart from a
  // power of two.
  const bool copied = product.rows.assignment && cpu.wants_spaced_rows(panel_type);
  const int64_t row_bytes = Arena::rounded(depth * kernels::size_of(type)) + 64;
  const int64_t scratch_bytes = Arena::rounded(panel_size) + kernels::kMultiplyScratch +
                                kTransposedRows * kMaxLanes * 4 + (copied ? kTransposedRows * row_bytes : 0);
  run_tasks(static_cast<int64_t>(ranges.size()) * parts, scratch_bytes, [&](int64_t task, void* scratch) {
    const RowRange& range = ranges[task / parts];
    const void* weight = place_data(*product.weight, range.place);
    const int64_t first = task % parts * width;
    const int64_t last = std::min(columns, first + width);
    Arena arena(scratch);
    void* packed = arena.take(panel_size);
    void* converted = arena.take(kernels::kMultiplyScratch);
    float* c = arena.take_floats(kTransposedRows * kMaxLanes);
    const void* rows[kTransposedRows];
    auto* copies = static_cast<std::byte*>(arena.take(0));
    for (int64_t i = 0; i < range.count; ++i) {
      rows[i] = product.rows.row(range.first + i);
      if (!copied) continue;
      rows[i] = std::memcpy(copies + i * row_bytes, rows[i], depth * kernels::size_of(type));
    }
    for (int64_t column = first; column < last; column += kMaxLanes) {
      const int count = static_cast<int>(std::min<int64_t>(kMaxLanes, last - column));
      const kernels::Panel panel = cpu.panel(panel_type, packed, depth, kernels::vectors_for(count));
      kernels::pack_matrix(cpu, type, weight, columns, column, count, panel);
      const int64_t after = std::min<int64_t>(kMaxLanes, last - column - count);
      kernels::Upcoming upcoming;
      if (after > 0) {
        const int64_t size = kernels::size_of(type);
        upcoming = {kernels::offset(weight, type, column + count), columns * size, depth, after * size};
      }
      const void* bias = product.bias ? place_data(*product.bias, range.place) : nullptr;
      if (bias)
        start_from_bias(cpu, type, kernels::offset(bias, type, column), count, panel.lanes(), range, c);
      void* to[kTransposedRows];
      kernels::RowOutput output{to, kernels::DType::kFloat32, count};
      if (product.out) {
        output.type = kernel_type(product.out->scalar_type());
        for (int64_t i = 0; i < range.count; ++i) {
          to[i] = kernels::offset(product.out->mutable_data_ptr(), output.type,
                                  (range.first + i) * columns + column);
        }
      }
      kernels::multiply_rows(cpu, panel, type, rows, range.count, c, bias != nullptr, converted, &upcoming,
                             product.out ? &output : nullptr);
      if (product.finish) product.finish(range, column, count, c, panel.lanes());
    }
  });
}

}  // namespace motley::ops
