#include "motley/nn/attention_kernel.h"

namespace motley {

AttentionKernels attention_portable() { return Attention<4>::kernels(); }

}  // namespace motley
