#include "benchmarks/memory_meter.h"

#include <c10/core/Allocator.h>

#include <algorithm>
#include <atomic>

namespace motley::bench {

class MemoryMeter::Reporter final : public c10::MemoryReportingInfoBase {
 public:
  explicit Reporter(c10::Device device) : device_(device) {}

  void reportMemoryUsage(void* /*pointer*/, int64_t bytes, size_t /*total_allocated*/,
                         size_t /*total_reserved*/, c10::Device device) override {
    if (device == device_) {
      live += bytes;
      peak = std::max(peak.load(), live.load());
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::atomic<int64_t> live = 0, peak = 0;

 private:
  c10::Device device_;
};

MemoryMeter::MemoryMeter(c10::Device device)
    : reporter_(std::make_shared<Reporter>(device)), guard_(c10::DebugInfoKind::PROFILER_STATE, reporter_) {}

int64_t MemoryMeter::live_bytes() const { return reporter_->live; }
int64_t MemoryMeter::peak_bytes() const { return reporter_->peak; }

}  // namespace motley::bench
