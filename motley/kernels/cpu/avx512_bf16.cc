// AVX-512 with products of bf16 pairs.
#include "motley/kernels/cpu/avx512_bf16.h"

#include "motley/kernels/cpu/x86.h"

namespace motley::kernels {

const CpuKernels& avx512_bf16_kernels() {
  static constexpr CpuKernels table = [] {
    CpuKernels made = avx512_bf16_table<RowOrder::kInOrder>();
    made.name = "avx512_bf16";
    return made;
  }();
  return table;
}

}  // namespace motley::kernels
