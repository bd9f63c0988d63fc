#include "motley/kernels/cpu/families.h"

#include "motley/base/concat.h"
#include "motley/base/env.h"
#include "motley/base/error.h"

namespace motley::kernels {

const Family& find_cpu_family(const std::string& name) {
  std::string available;
  for (const Family& family : cpu_families()) {
    if (!family.available) continue;
    available += (available.empty() ? "" : ", ") + family.name;
    if (family.name == name) return family;
  }
  throw UserError(Mistake{"MOTLEY_CPU_KERNELS", concat("a family that this processor runs: ", available),
                          concat("'", name, "'"), "unset it to use the best one"});
}

const Family& cpu_family() {
  static const Family& chosen = [&]() -> const Family& {
    if (const auto& forced = environment().cpu_kernels) return find_cpu_family(*forced);
    const Family* best = nullptr;
    for (const Family& family : cpu_families()) {
      if (family.available) best = &family;
    }
    return *best;
  }();
  return chosen;
}

}  // namespace motley::kernels
