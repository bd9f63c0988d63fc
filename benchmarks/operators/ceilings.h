// What one core can do, measured now: the peak of its matrix instructions, and reading memory.
#pragma once

#include <cstdint>

namespace motley::bench {

// FLOP/s with every operand in registers; 0 where the processor lacks the instructions.
double fma_peak();        // fp32, the widest fused multiply-add there is
double bf16_pair_peak();  // vdpbf16ps
double tile_peak();       // tdpbf16ps

// Which of two orders reads faster depends on the size of the machine's pages.
enum class ReadOrder { kLines, kPages };
// Reads memory once, but for an incomplete block at its end; false where the processor lacks the
// instructions.
bool read_once(const void* memory, int64_t bytes, ReadOrder order);

}  // namespace motley::bench
