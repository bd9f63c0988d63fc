#include "benchmarks/operators/machine_ceilings.h"

#include <ATen/Parallel.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <atomic>
#include <numeric>

#include "benchmarks/operators/ceilings.h"
#include "motley/base/clock.h"
#include "motley/kernels/cpu/families.h"

namespace motley::bench {
namespace {

constexpr int64_t kMemory = int64_t{512} << 20;  // more than any cache holds
constexpr int64_t kPiece = int64_t{2} << 20;     // what a thread takes at a time

double on_all_threads(double (*peak)()) {
  const int64_t threads = at::get_num_threads();
  std::vector<double> rates(threads);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) rates[i] = peak();
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

}  // namespace

double fp32_ceiling() { return on_all_threads(fma_peak); }
double bf16_ceiling() {
  return on_all_threads(kernels::cpu_family().name == "amx" ? tile_peak : bf16_pair_peak);
}

ReadCeiling::ReadCeiling(int64_t bytes)
    : memory_(at::ones({std::max(kMemory, 2 * bytes)}, at::kByte)), bytes_(bytes) {}

void ReadCeiling::read() {
  const auto order = rates_[1].size() < rates_[0].size() ? ReadOrder::kPages : ReadOrder::kLines;
  if (position_ + bytes_ > memory_.numel()) position_ = 0;
  const auto* from = static_cast<const std::byte*>(memory_.const_data_ptr()) + position_;
  position_ += bytes_;
  std::atomic<int64_t> next{0};
  std::atomic<bool> done{true};
  const double start = seconds_now();
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t at = next.fetch_add(kPiece); at < bytes_; at = next.fetch_add(kPiece)) {
      if (!read_once(from + at, std::min(kPiece, bytes_ - at), order)) done = false;
    }
  });
  const double seconds = seconds_now() - start;
  rates_[static_cast<int>(order)].push_back(done ? static_cast<double>(bytes_) / seconds : 0);
}

double ReadCeiling::median() const {
  double best = 0;
  for (std::vector<double> rates : rates_) {
    if (rates.empty()) continue;
    std::sort(rates.begin(), rates.end());
    best = std::max(best, rates[rates.size() / 2]);
  }
  return best;
}

double read_ceiling(double seconds) {
  ReadCeiling ceiling(int64_t{64} << 20);
  const double begin = seconds_now();
  for (int i = 0; i < 10 || seconds_now() - begin < seconds; ++i) ceiling.read();
  return ceiling.median();
}

}  // namespace motley::bench
