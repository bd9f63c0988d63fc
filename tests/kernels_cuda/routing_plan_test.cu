#include <algorithm>
#include <random>

#include "motley/kernels/cuda/routing_plan.h"
#include "tests/kernels_cuda/device_array.h"
#include "tests/kernels_cuda/tests.h"

namespace motley::cuda::test {
namespace {

// The plan of one routing against a sort on the host, bit for bit.
void check_plan(Report& report, const std::vector<int>& slots, int num_experts) {
  const int count = static_cast<int>(slots.size());
  DeviceArray<int> device_slots(slots), row_assignment(count), expert_offset(num_experts + 1),
      token_rows(count);
  DeviceArray<RowTile> tiles(max_row_tiles(count, num_experts));
  DeviceArray<int> num_tiles(1);
  DeviceArray<char> workspace(routing_plan_workspace_bytes(count, num_experts));
  routing_plan(device_slots.get(), count, num_experts,
               {row_assignment.get(), expert_offset.get(), token_rows.get()}, {tiles.get(), num_tiles.get()},
               workspace.get(), nullptr);
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());

  std::vector<int> offset(num_experts + 1), assignment(count, -1), rows(count, -1);
  for (int slot : slots)
    if (slot >= 0 && slot < num_experts) ++offset[slot + 1];
  for (int e = 0; e < num_experts; ++e) offset[e + 1] += offset[e];
  std::vector<int> next(offset);
  for (int i = 0; i < count; ++i)
    if (slots[i] >= 0 && slots[i] < num_experts) assignment[rows[i] = next[slots[i]]++] = i;
  report.check(expert_offset.host() == offset, "expert_offset");
  report.check(row_assignment.host() == assignment, "row_assignment");
  report.check(token_rows.host() == rows, "token_rows");

  std::vector<RowTile> expected;
  for (int e = 0; e < num_experts; ++e)
    for (int row = offset[e]; row < offset[e + 1]; row += kTileRows)
      expected.push_back({e, row, std::min(row + kTileRows, offset[e + 1]), e});
  std::vector<RowTile> got = tiles.host();
  const bool same_count = report.check(num_tiles.host()[0] == static_cast<int>(expected.size()), "num_tiles");
  report.check(same_count && std::memcmp(got.data(), expected.data(), sizeof(RowTile) * expected.size()) == 0,
               "tiles");
  report.check(row_assignment.guard_intact() && expert_offset.guard_intact() && token_rows.guard_intact() &&
                   tiles.guard_intact() && workspace.guard_intact(),
               "guards");

  // The schedule of experts of which every third is elsewhere.
  std::vector<int> places(num_experts);
  for (int e = 0; e < num_experts; ++e) places[e] = e % 3 == 1 ? -1 : num_experts - 1 - e;
  DeviceArray<int> device_places(places);
  tile_schedule(expert_offset.get(), num_experts, device_places.get(), {tiles.get(), num_tiles.get()},
                nullptr);
  std::vector<RowTile> placed;
  for (RowTile tile : expected)
    if (places[tile.expert] >= 0) {
      tile.place = places[tile.expert];
      placed.push_back(tile);
    }
  got = tiles.host();
  report.check(num_tiles.host()[0] == static_cast<int>(placed.size()) &&
                   std::memcmp(got.data(), placed.data(), sizeof(RowTile) * placed.size()) == 0,
               "tiles of placed experts");
}

}  // namespace

void test_routing_plan(Report& report, int most_cases) {
  std::mt19937 random(1);
  struct Case {
    const char* name;
    int count, experts, low, high;
  };
  const Case cases[] = {
      {"plan: no assignments", 0, 4, 0, 3},
      {"plan: one", 1, 1, 0, 0},
      {"plan: a few", 100, 7, 0, 6},
      {"plan: drops and zero experts", 5000, 16, -3, 20},
      {"plan: one expert has all", 9000, 64, 5, 5},
      {"plan: none has a row", 3000, 8, 8, 12},
      {"plan: 1024 experts", 70000, 1024, 0, 1023},
      {"plan: large", 262144, 128, 0, 127},
  };
  for (const Case& c : cases) {
    if (most_cases < kAllCases && c.count > 10000) continue;
    std::vector<int> slots(c.count);
    for (int& slot : slots) slot = c.low + static_cast<int>(random() % (c.high - c.low + 1));
    report.name = c.name;
    check_plan(report, slots, c.experts);
  }
}

}  // namespace motley::cuda::test
