#include "motley/infer/threads.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "motley/base/env.h"
#include "motley/base/processors.h"

namespace motley {

int choose_threads(int64_t wanted) {
  if (wanted > 0) return static_cast<int>(wanted);
  if (const auto set = environment().num_threads) return *set;
  return std::min(at::get_num_threads(), usable_processors());  // OMP_NUM_THREADS may ask for fewer
}

int use_threads(int64_t wanted) {
  at::set_num_threads(choose_threads(wanted));
  return at::get_num_threads();
}

}  // namespace motley
