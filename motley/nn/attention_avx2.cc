#include "motley/nn/attention_kernel.h"

namespace motley {

AttentionKernels attention_avx2() { return Attention<8>::kernels(); }

}  // namespace motley
