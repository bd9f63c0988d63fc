// What the machine can do, measured now: the matrix instruction peak of one core and the read bandwidth.
#pragma once

#include <cstdint>

namespace motley::bench {

// FLOP/s of one core with every operand in registers; 0 where the processor lacks the instructions.
double fma_peak();        // fp32, the widest fused multiply-add there is
double bf16_pair_peak();  // vdpbf16ps
double tile_peak();       // tdpbf16ps

// Bytes a second when this thread reads `bytes` once, larger than the caches; 0 where it cannot be told.
double read_bandwidth(const void* memory, int64_t bytes);

}  // namespace motley::bench
