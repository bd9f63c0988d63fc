#include "motley/ops/outer_cpu.h"

#include <algorithm>

#include "motley/kernels/cpu/families.h"
#include "motley/kernels/cpu/outer.h"

namespace motley::ops {
namespace {

// Even blocks, in multiples of `unit`, of at most `most`.
int64_t block_size(int64_t total, int64_t most, int64_t unit) {
  const int64_t parts = std::max<int64_t>(1, (total + most - 1) / most);
  return ((total + parts - 1) / parts + unit - 1) / unit * unit;
}

struct Task {
  const OuterProduct* product;
  const RowRange* range;
  int64_t m, num_m, j, num_j;
  int64_t work() const { return (range->count + kFixedRows) * num_m * num_j; }
  static constexpr int64_t kFixedRows = 32;  // what writing the result costs, in rows
};

// The largest come first.
std::vector<Task> make_tasks(const std::vector<OuterProduct>& products, const std::vector<RowRange>& experts,
                             int64_t row_unit) {
  std::vector<Task> tasks;
  for (const OuterProduct& p : products) {
    for (const RowRange& range : experts) {
      const int64_t rows = block_size(p.m, kernels::kOuterRows / row_unit * row_unit, row_unit);
      const int64_t columns = block_size(p.j, kernels::outer_columns(range.count), kernels::kMaxLanes);
      for (int64_t m = 0; m < p.m; m += rows) {
        for (int64_t j = 0; j < p.j; j += columns) {
          tasks.push_back({&p, &range, m, std::min(rows, p.m - m), j, std::min(columns, p.j - j)});
        }
      }
    }
  }
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task& a, const Task& b) { return a.work() > b.work(); });
  return tasks;
}

}  // namespace

void run_outer(const std::vector<OuterProduct>& products, const std::vector<RowRange>& experts,
               bool accumulate) {
  const auto& cpu = kernels::cpu_kernels();
  const int64_t row_unit = cpu.tile_unit(cpu.panel_type(products.front().a.type));
  const std::vector<Task> tasks = make_tasks(products, experts, row_unit);
  run_tasks(static_cast<int64_t>(tasks.size()), kernels::outer_scratch_bytes(),
            [&](int64_t i, void* scratch) {
              const Task& task = tasks[i];
              const OuterProduct& p = *task.product;
              const auto type = kernel_type(p.out->scalar_type());
              void* out = kernels::offset(p.out->mutable_data_ptr(), type, task.range->place * p.m * p.j);
              kernels::outer_block(cpu,
                                   {p.a, p.b, task.range->first, task.range->first + task.range->count,
                                    task.m, task.num_m, task.j, task.num_j, type, out, p.j, accumulate},
                                   scratch);
            });
}

}  // namespace motley::ops
