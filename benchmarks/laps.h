// The times of pieces of work that follow each other.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <utility>
#include <vector>

#include "benchmarks/device.h"
#include "motley/base/clock.h"

namespace motley::bench {

// On a GPU by the GPU's clock, while the host hands over one piece after the other: what the host does counts
// only where it takes longer than the device.
class Laps {
 public:
  explicit Laps(c10::Device device) : device_(device) {}

  // Before the first piece, between two, after the last.
  void mark() {
    host_.push_back(seconds_now());
    if (device_.is_cpu()) return;
    events_.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    events_.back().record(c10::impl::getDeviceGuardImpl(device_.type())->getStream(device_));
  }

  // Waits for the last piece.
  std::vector<double> seconds() const {
    if (device_.is_cpu()) return host_seconds();
    events_.back().synchronize();
    std::vector<double> laps;
    for (size_t i = 1; i < events_.size(); ++i) laps.push_back(events_[i - 1].elapsedTime(events_[i]) * 1e-3);
    return laps;
  }

  // How long the host took to hand over, on a CPU to do, each.
  std::vector<double> host_seconds() const {
    std::vector<double> laps;
    for (size_t i = 1; i < host_.size(); ++i) laps.push_back(host_[i] - host_[i - 1]);
    return laps;
  }

 private:
  c10::Device device_;
  std::vector<double> host_;
  std::vector<c10::Event> events_;
};

}  // namespace motley::bench
