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

using Run = std::function<void(int64_t)>;

// Each run(0) to warm up, then each run(1), each run(2) ... for `budget` seconds, `least` times at least;
// each until `device` has done it. In turn, so that all of them see the same machine.
inline std::vector<Timing> measure_in_turn(double budget, const std::vector<Run>& runs,
                                           c10::Device device = c10::kCPU, int64_t least = 5) {
  std::vector<std::vector<double>> seconds(runs.size());
  double begin = 0;
  for (int64_t i = 0; i <= least || seconds_now() - begin < budget; ++i) {
    for (size_t r = 0; r < runs.size(); ++r) {
      const double start = seconds_now();
      runs[r](i);
      wait_for(device);
      if (i > 0) seconds[r].push_back(seconds_now() - start);
    }
    if (i == 0) begin = seconds_now();
  }
  std::vector<Timing> timings;
  for (auto& each : seconds) timings.push_back(summarise(std::move(each)));
  return timings;
}
inline Timing measure(double budget, const Run& run, c10::Device device = c10::kCPU) {
  return measure_in_turn(budget, {run}, device).front();
}

}  // namespace motley::bench
