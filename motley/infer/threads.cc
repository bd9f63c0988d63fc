#include "motley/infer/threads.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "motley/base/env.h"
#include "motley/base/processors.h"

namespace motley {

int64_t use_threads(int64_t wanted) {
  if (wanted == 0) wanted = environment().num_threads.value_or(0);
  // OMP_NUM_THREADS may ask for fewer than there are processors.
  if (wanted == 0) wanted = std::min(at::get_num_threads(), usable_processors());
  at::set_num_threads(static_cast<int>(wanted));
  return at::get_num_threads();
}

}  // namespace motley
