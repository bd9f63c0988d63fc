#include "motley/base/memory.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <fstream>
#include <limits>

#include "motley/base/env.h"
#include "motley/base/error.h"
#include "motley/base/format.h"
#include "motley/base/processors.h"

namespace motley {

Memory usable_memory(const std::filesystem::path& meminfo) {
  Memory memory;
  std::ifstream words(meminfo);  // "MemTotal: 24590520 kB"
  for (std::string word; words >> word;) {
    uint64_t* field = word == "MemTotal:"       ? &memory.total
                      : word == "MemAvailable:" ? &memory.available
                      : word == "SwapTotal:"    ? &memory.swap
                                                : nullptr;
    if (field != nullptr && words >> *field) *field *= 1024;
  }
  const GroupLimits limits = group_limits();
  if (!limits.memory || *limits.memory >= memory.total) return memory;
  memory.total = *limits.memory;
  memory.swap = 0;  // the machine's, of which the group may have none
  const uint64_t used = std::min(*limits.memory, limits.memory_used.value_or(0));
  memory.available = std::min(memory.available, *limits.memory - used);
  return memory;
}

void require_memory(const std::string& where, const std::string& what, double bytes, const std::string& fix) {
  const Memory memory = usable_memory();
  const auto limit = static_cast<double>(memory.total + memory.swap);
  if (limit == 0 || bytes <= limit) return;
  throw UserError(Mistake{where, concat(what, " within the ", format_bytes(limit), " of memory here"),
                          format_bytes(bytes), fix});
}

void set_up_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
  ask_for_huge_pages();
}

}  // namespace motley
