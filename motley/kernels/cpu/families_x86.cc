#include <sys/syscall.h>
#include <unistd.h>

#include "motley/kernels/cpu/families.h"
#include "motley/kernels/cpu/portable.h"
#include "motley/kernels/cpu/x86.h"

namespace motley::kernels {
namespace {

// Linux gives the tile registers' 8 KiB of state to processes that ask for them, and to their later threads.
bool permitted_to_use_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

const std::vector<Family>& cpu_families() {
  static const std::vector<Family> families = [] {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    const bool amx = bf16 && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
                     permitted_to_use_tiles();
    return std::vector<Family>{
        {"portable", "128-bit vectors, fp32", true, &portable_kernels()},
        {"avx2", "256-bit fused multiply-add, fp32", avx2, &avx2_kernels()},
        {"avx512", "512-bit fused multiply-add, fp32", avx512, &avx512_kernels()},
        {"avx512_bf16", "512-bit fused multiply-add, fp32, and vdpbf16ps, bf16", bf16,
         &avx512_bf16_kernels()},
        {"amx", "512-bit fused multiply-add, fp32, and tdpbf16ps on tiles, bf16", amx, &amx_kernels()},
    };
  }();
  return families;
}

}  // namespace motley::kernels
