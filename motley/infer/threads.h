// How many threads compute.
#pragma once

#include <cstdint>

namespace motley {

// How many use_threads() would set. 0: MOTLEY_THREADS, or else the processors that this process may use
// (threads beyond a container's share of time wait for each other, spinning).
int choose_threads(int64_t wanted = 0);
// Sets torch's threads and tells how many there are.
int use_threads(int64_t wanted = 0);

}  // namespace motley
