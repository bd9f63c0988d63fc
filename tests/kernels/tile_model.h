// The family with tile registers (AMX) on any processor: its loops over a plain model of the instructions.
#pragma once

#include "motley/kernels/cpu/families.h"

namespace motley::kernels::testing {

const Family& tile_model();

}  // namespace motley::kernels::testing
