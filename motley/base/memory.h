// Memory that this process may use: a container's limit is less than the machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace motley {

struct Memory {
  uint64_t total = 0, available = 0, swap = 0;  // bytes
};

// All zeros where `meminfo` cannot be read.
Memory usable_memory(const std::filesystem::path& meminfo = "/proc/meminfo");

// Throws UserError where `what` takes more bytes than there are, swap included: the system would otherwise
// end the process somewhere in the middle, without a word. `fix` says what to make smaller.
void require_memory(const std::string& where, const std::string& what, double bytes, const std::string& fix);

}  // namespace motley
