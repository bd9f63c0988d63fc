// Processors without a family of their own.
#include "motley/nn/attention_kernels.h"

namespace motley {

AttentionKernels attention_kernels(const std::string& family) { return attention_portable(); }

}  // namespace motley
