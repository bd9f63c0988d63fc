#include "motley/ops/outer_cpu.h"

#include <algorithm>

#include "motley/kernels/cpu/families.h"
#include "motley/kernels/cpu/outer.h"

namespace motley::ops {
namespace {

using kernels::kOuterColumns;
using kernels::kOuterRows;

int64_t blocks(int64_t size, int64_t block) { return (size + block - 1) / block; }

}  // namespace

void run_outer(const std::vector<OuterProduct>& products, const std::vector<RowRange>& experts,
               bool accumulate) {
  const auto& cpu = kernels::cpu_kernels();
  std::vector<int64_t> ends;  // tasks up to and with each product
  int64_t num_tasks = 0;
  for (const OuterProduct& p : products) {
    num_tasks += static_cast<int64_t>(experts.size()) * blocks(p.m, kOuterRows) * blocks(p.j, kOuterColumns);
    ends.push_back(num_tasks);
  }
  run_tasks(num_tasks, kernels::outer_scratch_bytes(), [&](int64_t task, void* scratch) {
    const size_t which = std::upper_bound(ends.begin(), ends.end(), task) - ends.begin();
    const OuterProduct& p = products[which];
    if (which > 0) task -= ends[which - 1];
    const int64_t m_blocks = blocks(p.m, kOuterRows);
    const int64_t j_blocks = blocks(p.j, kOuterColumns);
    const RowRange& range = experts[task / (m_blocks * j_blocks)];
    const int64_t m = task / j_blocks % m_blocks * kOuterRows;
    const int64_t j = task % j_blocks * kOuterColumns;
    const auto type = kernel_type(p.out->scalar_type());
    void* out = kernels::offset(p.out->mutable_data_ptr(), type, range.place * p.m * p.j);
    kernels::outer_block(cpu,
                         {p.a, p.b, range.first, range.first + range.count, m, std::min(kOuterRows, p.m - m),
                          j, std::min(kOuterColumns, p.j - j), type, out, p.j, accumulate},
                         scratch);
  });
}

}  // namespace motley::ops
