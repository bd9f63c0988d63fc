#include "benchmarks/memory_meter.h"

#include <c10/core/Allocator.h>

#include <algorithm>
#include <atomic>

namespace motley::bench {

class MemoryMeter::Reporter final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* /*pointer*/, int64_t bytes, size_t /*total_allocated*/,
                         size_t /*total_reserved*/, c10::Device device) override {
    if (device.is_cpu()) {
      live += bytes;
      peak = std::max(peak.load(), live.load());
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::atomic<int64_t> live = 0, peak = 0;
};

MemoryMeter::MemoryMeter()
    : reporter_(std::make_shared<Reporter>()), guard_(c10::DebugInfoKind::PROFILER_STATE, reporter_) {}

int64_t MemoryMeter::live_bytes() const { return reporter_->live; }
int64_t MemoryMeter::peak_bytes() const { return reporter_->peak; }

}  // namespace motley::bench
