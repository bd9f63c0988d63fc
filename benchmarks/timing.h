// How often-repeated work is timed: the median and the spread of whole runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "benchmarks/device.h"
#include "motley/base/clock.h"

namespace motley::bench {

struct Timing {
  double median, least, most;  // seconds
  int64_t runs;
};

inline Timing summarise(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back(), static_cast<int64_t>(seconds.size())};
}

// run(0) to warm up, then run(1), run(2) ... for `budget` seconds, five times at least; each until `device`
// has done it.
inline Timing measure(double budget, const std::function<void(int64_t)>& run,
                      c10::Device device = c10::kCPU) {
  run(0);
  wait_for(device);
  std::vector<double> seconds;
  const double begin = seconds_now();
  for (int64_t i = 1; seconds.size() < 5 || seconds_now() - begin < budget; ++i) {
    const double start = seconds_now();
    run(i);
    wait_for(device);
    seconds.push_back(seconds_now() - start);
  }
  return summarise(std::move(seconds));
}

}  // namespace motley::bench
