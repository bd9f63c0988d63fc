// How many threads compute.
#pragma once

#include <cstdint>

namespace motley {

// Sets torch's threads and tells how many there are. 0: MOTLEY_THREADS, or else the processors that this
// process may use (threads beyond a container's share of time wait for each other, spinning).
int64_t use_threads(int64_t wanted = 0);

}  // namespace motley
