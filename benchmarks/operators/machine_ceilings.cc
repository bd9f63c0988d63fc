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

ReadCeiling::ReadCeiling() : memory_(at::ones({kMemory}, at::kByte)) {
  constexpr int kTries = 5;
  std::vector<double> rates[2];
  for (int i = 0; i < 2 * kTries; ++i) rates[i % 2].push_back(read(kMemory / 8, i % 2 == 1));
  for (auto& each : rates) std::sort(each.begin(), each.end());
  by_pages_ = rates[1][kTries / 2] > rates[0][kTries / 2];
}

double ReadCeiling::rate(int64_t bytes) { return read(bytes, by_pages_); }

double ReadCeiling::read(int64_t bytes, bool by_pages) {
  const auto order = by_pages ? ReadOrder::kPages : ReadOrder::kLines;
  const auto* memory = static_cast<const std::byte*>(memory_.const_data_ptr());
  const int64_t pieces = memory_.numel() / kPiece, wanted = (bytes + kPiece - 1) / kPiece;
  std::atomic<int64_t> next{0};
  std::atomic<bool> done{true};
  const double start = seconds_now();
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t i = next.fetch_add(1); i < wanted; i = next.fetch_add(1)) {
      if (!read_once(memory + (position_ + i) % pieces * kPiece, kPiece, order)) done = false;
    }
  });
  const double seconds = seconds_now() - start;
  position_ = (position_ + wanted) % pieces;
  return done ? static_cast<double>(wanted * kPiece) / seconds : 0;
}

double read_ceiling(double seconds) {
  ReadCeiling ceiling;
  std::vector<double> rates;
  const double begin = seconds_now();
  while (rates.size() < 10 || seconds_now() - begin < seconds) rates.push_back(ceiling.rate(kMemory / 8));
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

}  // namespace motley::bench
