// The memory this process may use (a container's limit is less than the machine), and how it uses it.
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

// First in main, before anything is allocated. Freed memory stays with the process: given back, as glibc does
// with large blocks, it returns page by page with a fault and zeros for each, a fifth of a small model's
// training step. Tensors of 2 MiB and more ask for huge pages: looking up pages of 4 KiB takes a sixth of a
// core's read bandwidth in a virtual machine.
void set_up_memory();

}  // namespace motley
