#pragma once

#include "motley/kernels/cpu/table.h"

namespace motley::kernels {

const CpuKernels& portable_kernels();

}  // namespace motley::kernels
