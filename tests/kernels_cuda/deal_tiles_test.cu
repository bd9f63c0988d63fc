// Every tile of the experts that are here is dealt once, and no cluster has much more to do than another.
#include "motley/kernels/cuda/sm90/deal_tiles.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "motley/kernels/cuda/sm90/gemm_params.h"
#include "tests/kernels_cuda/tests.h"

namespace motley::cuda::test {
namespace {

void check_dealt(Report& report, const std::vector<int>& rows, const std::vector<int>& places,
                 int tiles_per_expert, int clusters) {
  const int experts = static_cast<int>(rows.size());
  std::vector<int> offset(experts + 1);
  for (int e = 0; e < experts; ++e) offset[e + 1] = offset[e] + rows[e];
  DeviceArray<int> expert_offset(offset), place_of_expert(places),
      dealt(sm90::kDealtHeader + clusters + size_t(experts) * tiles_per_expert);
  const ExpertPlan plan{nullptr, expert_offset.get(), places.empty() ? nullptr : place_of_expert.get(), {}};
  sm90::deal_tiles(plan, experts, tiles_per_expert, clusters, dealt.get(), nullptr);
  MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
  std::vector<int> next = dealt.host();
  const bool alike = next[0] == 0;
  const auto here = [&](int expert) { return places.empty() || places[expert] >= 0; };
  long largest = 0, present = 0, all_rows = 0;
  for (int e = 0; e < experts; ++e)
    if (here(e)) largest = std::max<long>(largest, rows[e]), ++present, all_rows += rows[e];
  report.check(dealt.guard_intact() && alike == (largest * 4 * present <= 5 * all_rows),
               "dealt where experts that are here differ");
  if (alike) return;
  next.erase(next.begin(), next.begin() + sm90::kDealtHeader);
  std::vector<int> times(size_t(experts) * tiles_per_expert);
  const auto cost = [&](int expert) {
    return std::max(std::ceil(rows[expert] / double(sm90::kTileK)), 2.) + 2;
  };
  double most = 0, all = 0, longest = 0;
  for (int cluster = 0; cluster < clusters; ++cluster) {
    double mine = 0;
    size_t hops = 0;
    for (int tile = next[cluster]; tile >= 0 && hops++ < times.size(); tile = next[clusters + tile]) {
      ++times[tile];
      mine += cost(tile / tiles_per_expert);
    }
    most = std::max(most, mine), all += mine;
  }
  bool once = true;
  for (size_t tile = 0; tile < times.size(); ++tile) {
    const int expert = static_cast<int>(tile) / tiles_per_expert;
    once &= times[tile] == here(expert);
    if (here(expert)) longest = std::max(longest, cost(expert));
  }
  report.check(once && dealt.guard_intact(), "every tile once");
  // Who has a tile of more than an even share gets nothing else.
  report.check(most <= 1.05 * std::max(longest, all / clusters), "an even share of the steps");
}

}  // namespace

void test_deal_tiles(Report& report) {
  const auto zipf = [](int experts, int largest) {
    std::vector<int> rows(experts);
    for (int e = 0; e < experts; ++e)  // out of order
      rows[(e * 37) % experts] = static_cast<int>(largest * std::pow(e + 1.0, -1.2));
    return rows;
  };
  report.name = "tiles: zipf";
  check_dealt(report, zipf(128, 20000), {}, 12, 66);
  check_dealt(report, zipf(128, 20000), {}, 48, 66);
  check_dealt(report, zipf(128, 20000), {}, 6, 66);
  report.name = "tiles: all the same";
  std::vector<int> same(64);
  for (int e = 0; e < 8; ++e) same[e * 7] = 32768;
  check_dealt(report, same, {}, 32, 66);
  report.name = "tiles: places";
  std::vector<int> places(128), alike(128);
  for (int e = 0; e < 128; ++e) places[e] = e % 3 == 1 ? -1 : 127 - e, alike[e] = e % 3 == 1 ? 0 : 1500;
  check_dealt(report, zipf(128, 9000), places, 24, 66);
  check_dealt(report, alike, places, 24, 66);
  report.name = "tiles: alike";
  check_dealt(report, std::vector<int>(64, 1500), {}, 33, 66);
  report.name = "tiles: no rows";
  check_dealt(report, std::vector<int>(5), {}, 3, 66);
  report.name = "tiles: one expert";
  check_dealt(report, {1000}, {}, 200, 57);
  report.name = "tiles: 1024 experts";
  check_dealt(report, zipf(1024, 3000), {}, 4, 66);
}

}  // namespace motley::cuda::test
