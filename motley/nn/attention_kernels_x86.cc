#include "motley/nn/attention_kernels.h"

namespace motley {

AttentionKernels attention_kernels(const std::string& family) {
  if (family == "portable") return attention_portable();
  if (family == "avx2") return attention_avx2();
  // All families above avx512 have its dot products of bf16 pairs.
  return family == "avx512" ? attention_avx512() : attention_avx512_bf16();
}

}  // namespace motley
