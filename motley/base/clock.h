// Time for measuring how long something took.
#pragma once

#include <chrono>

namespace motley {

// Seconds of the steady clock, from an arbitrary beginning.
inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace motley
