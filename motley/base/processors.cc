#include "motley/base/processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace motley {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> words_of(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

std::optional<double> number(const std::vector<std::string>& words, size_t index) {
  if (index >= words.size()) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(words[index].c_str(), &end);
  return *end == '\0' && value > 0 ? std::optional(value) : std::nullopt;  // "max" and -1: no limit
}

void lower(GroupLimits& limits, std::optional<double> quota, std::optional<double> period) {
  if (!quota || !period) return;
  limits.processors = std::min(limits.processors.value_or(*quota / *period), *quota / *period);
}

void read_group(const fs::path& group, GroupLimits& limits) {
  const auto two = words_of(group / "cpu.max");  // "QUOTA PERIOD"
  lower(limits, number(two, 0), number(two, 1));
  lower(limits, number(words_of(group / "cpu.cfs_quota_us"), 0),
        number(words_of(group / "cpu.cfs_period_us"), 0));
  for (const auto& [limit, used] : {std::pair{"memory.max", "memory.current"},
                                    std::pair{"memory.limit_in_bytes", "memory.usage_in_bytes"}}) {
    const auto bytes = number(words_of(group / limit), 0);
    if (!bytes || *bytes >= 0x1p62 || (limits.memory && *bytes >= static_cast<double>(*limits.memory)))
      continue;
    limits.memory = static_cast<uint64_t>(*bytes);
    limits.memory_used = static_cast<uint64_t>(number(words_of(group / used), 0).value_or(0));
  }
}

}  // namespace

GroupLimits group_limits(const fs::path& root, const fs::path& self) {
  GroupLimits limits;
  std::ifstream lines(self);
  for (std::string line; std::getline(lines, line);) {  // "ID:CONTROLLERS:PATH"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && controllers.find("cpu") == std::string::npos && controllers != "memory")
      continue;
    const fs::path mount = controllers.empty() ? root : root / controllers;
    // Inside a container the path may be the host's, which is not there; its own group is then the root.
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    for (; !group.empty(); group = group.parent_path()) read_group(mount / group, limits);
    read_group(mount, limits);
  }
  return limits;
}

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const bool known = sched_getaffinity(0, sizeof(set), &set) == 0;
  const int count = known ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency());
  const auto limit = group_limits().processors;
  return std::max(1, limit && *limit < count ? static_cast<int>(std::ceil(*limit)) : count);
}

}  // namespace motley
