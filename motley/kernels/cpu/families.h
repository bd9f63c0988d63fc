// The families of CPU kernels, best last, and the choice between them.
#pragma once

#include <string>
#include <vector>

#include "motley/kernels/cpu/table.h"

namespace motley::kernels {

struct Family {
  std::string name;          // portable, avx2, avx512, avx512_bf16, amx
  std::string instructions;  // what it multiplies with
  bool available = false;    // this processor and operating system can run it
  const CpuKernels* kernels = nullptr;
};

// All families that are built in, best last.
const std::vector<Family>& cpu_families();

// The available family of this name. Throws UserError, which lists those there are, where there is none.
const Family& find_cpu_family(const std::string& name);

// The one in use: MOTLEY_CPU_KERNELS or else the best available one. Chosen at the first call.
const Family& cpu_family();
inline const CpuKernels& cpu_kernels() { return *cpu_family().kernels; }

}  // namespace motley::kernels
