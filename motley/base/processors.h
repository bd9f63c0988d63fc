#pragma once
// What of the machine this process may use: a container's limits are less than the machine.
#include <cstdint>
#include <filesystem>
#include <optional>

namespace motley {

// Limits of the control group that a process is in, and of those around it.
struct GroupLimits {
  std::optional<double> processors;          // of which it may use so much at a time
  std::optional<uint64_t> memory;            // bytes
  std::optional<uint64_t> memory_used = {};  // within that limit
};

// `root` is where control groups are mounted, `self` the file that names the process's own
// (/proc/self/cgroup). Versions 1 and 2; what cannot be read counts as no limit.
GroupLimits group_limits(const std::filesystem::path& root = "/sys/fs/cgroup",
                         const std::filesystem::path& self = "/proc/self/cgroup");

// Processors of this process's affinity mask, and no more than its control group gives it time for, rounded
// up.
int usable_processors();

}  // namespace motley
