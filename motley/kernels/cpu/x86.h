// The x86-64 families; each may be called only where its instructions are there (families_x86.cc).
#pragma once

#include "motley/kernels/cpu/table.h"

namespace motley::kernels {

const CpuKernels& avx2_kernels();
const CpuKernels& avx512_kernels();
const CpuKernels& avx512_bf16_kernels();
const CpuKernels& amx_kernels();

}  // namespace motley::kernels
