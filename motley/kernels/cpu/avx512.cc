// AVX-512 without bf16 products.
#include "motley/kernels/cpu/avx512_table.h"
#include "motley/kernels/cpu/x86.h"

namespace motley::kernels {

const CpuKernels& avx512_kernels() {
  static constexpr CpuKernels table = avx512_table();
  return table;
}

}  // namespace motley::kernels
