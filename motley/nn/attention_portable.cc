#include "motley/nn/attention_kernel.h"

namespace motley {

int64_t attention_scratch_floats(int64_t length, int64_t head_dim) {
  return AttentionScratch(nullptr, length, head_dim).floats;
}

AttentionKernels attention_portable() { return Attention<4>::kernels(); }

}  // namespace motley
