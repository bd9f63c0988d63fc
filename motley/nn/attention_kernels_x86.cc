#include "motley/nn/attention_kernels.h"

namespace motley {

AttentionKernels attention_kernels(const std::string& family) {
  if (family == "portable") return attention_portable();
  // All families above avx2 have AVX-512.
  return family == "avx2" ? attention_avx2() : attention_avx512();
}

}  // namespace motley
