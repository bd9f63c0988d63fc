#include "motley/nn/attention_kernel.h"

namespace motley {

AttentionKernels attention_avx512() { return Attention<16>::kernels(); }

}  // namespace motley
