#include <c10/util/Exception.h>

#include "motley/nn/gpu.h"

namespace motley::gpu {

at::Tensor rotary(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool) {
  TORCH_CHECK(false, "[rotary] this build has no CUDA");
}

at::Tensor decode_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const BlockCache&) {
  TORCH_CHECK(false, "[decode_attention] this build has no CUDA");
}

}  // namespace motley::gpu
