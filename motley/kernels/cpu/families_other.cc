// Processors without a family of their own.
#include "motley/kernels/cpu/families.h"
#include "motley/kernels/cpu/portable.h"

namespace motley::kernels {

const std::vector<Family>& cpu_families() {
  static const std::vector<Family> families = {
      {"portable", "128-bit vectors, fp32", true, &portable_kernels()},
  };
  return families;
}

}  // namespace motley::kernels
