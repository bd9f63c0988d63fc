#include "motley/ops/outer_cpu.h"

#include <algorithm>

#include "motley/kernels/cpu/families.h"
#include "motley/kernels/cpu/outer.h"

namespace motley::ops {
namespace {

using kernels::kOuterColumns;
using kernels::kOuterRows;

// Even blocks, in multiples of `unit`, of at most `most`.
struct Blocks {
  int64_t count, size;
};
Blocks blocks(int64_t total, int64_t most, int64_t unit) {
  if (total == 0) return {0, 0};
  const int64_t parts = (total + most - 1) / most;
  const int64_t size = ((total + parts - 1) / parts + unit - 1) / unit * unit;
  return {(total + size - 1) / size, size};
}
Blocks row_blocks(const OuterProduct& p) { return blocks(p.m, kOuterRows, kernels::kTileRows); }
Blocks column_blocks(const OuterProduct& p) { return blocks(p.j, kOuterColumns, kernels::kMaxLanes); }

}  // namespace

void run_outer(const std::vector<OuterProduct>& products, const std::vector<RowRange>& experts,
               bool accumulate) {
  const auto& cpu = kernels::cpu_kernels();
  std::vector<int64_t> ends;  // tasks up to and with each product
  int64_t num_tasks = 0;
  for (const OuterProduct& p : products) {
    num_tasks += static_cast<int64_t>(experts.size()) * row_blocks(p).count * column_blocks(p).count;
    ends.push_back(num_tasks);
  }
  run_tasks(num_tasks, kernels::outer_scratch_bytes(), [&](int64_t task, void* scratch) {
    const size_t which = std::upper_bound(ends.begin(), ends.end(), task) - ends.begin();
    const OuterProduct& p = products[which];
    if (which > 0) task -= ends[which - 1];
    const Blocks m_blocks = row_blocks(p);
    const Blocks j_blocks = column_blocks(p);
    const RowRange& range = experts[task / (m_blocks.count * j_blocks.count)];
    const int64_t m = task / j_blocks.count % m_blocks.count * m_blocks.size;
    const int64_t j = task % j_blocks.count * j_blocks.size;
    const auto type = kernel_type(p.out->scalar_type());
    void* out = kernels::offset(p.out->mutable_data_ptr(), type, range.place * p.m * p.j);
    kernels::outer_block(
        cpu,
        {p.a, p.b, range.first, range.first + range.count, m, std::min(m_blocks.size, p.m - m), j,
         std::min(j_blocks.size, p.j - j), type, out, p.j, accumulate},
        scratch);
  });
}

}  // namespace motley::ops
