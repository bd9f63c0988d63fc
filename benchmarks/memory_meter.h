// Counts what tensors on a device take, on the thread that makes the meter, while it lives.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <memory>

namespace motley::bench {

class MemoryMeter {
 public:
  explicit MemoryMeter(c10::Device device = c10::kCPU);
  int64_t live_bytes() const;  // allocated less freed since the meter was made
  int64_t peak_bytes() const;

 private:
  class Reporter;
  std::shared_ptr<Reporter> reporter_;
  c10::DebugInfoGuard guard_;
};

}  // namespace motley::bench
