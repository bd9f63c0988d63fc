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
  const int largest = rows.empty() ? 0 : *std::max_element(rows.begin(), rows.end());
  report.check(
      dealt.guard_intact() && (!places.empty() || alike == (largest * 4 * experts <= 5 * offset[experts])),
      "dealt where experts differ");
  if (alike) return;
  next.erase(next.begin(), next.begin() + sm90::kDealtHeader);
  std::vector<int> times(size_t(experts) * tiles_per_expert);
  const auto cost = [&](int expert) { return std::ceil(rows[expert] / double(sm90::kTileK)) + 2; };
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
    const bool here = places.empty() || places[expert] >= 0;
    once &= times[tile] == here;
    if (here) longest = std::max(longest, cost(expert));
  }
  report.check(once && dealt.guard_intact(), "every tile once");
  report.check(most <= all / clusters + 0.8 * longest, "an even share of the steps");
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
  report.name = "tiles: places";
  std::vector<int> places(128);
  for (int e = 0; e < 128; ++e) places[e] = e % 3 == 1 ? -1 : 127 - e;
  check_dealt(report, zipf(128, 9000), places, 24, 66);
  report.name = "tiles: alike";
  check_dealt(report, std::vector<int>(64, 1500), {}, 33, 66);
  report.name = "tiles: no rows";
  check_dealt(report, std::vector<int>(5), {}, 3, 66);
  report.name = "tiles: one expert";
  check_dealt(report, {1000}, {}, 200, 57);
  report.name = "tiles: 1024 experts";
  check_dealt(report, zipf(1023, 3000), {}, 4, 66);
}

}  // namespace motley::cuda::test
