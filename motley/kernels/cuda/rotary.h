// Rotary position embedding in the halves layout: element i turns with element i + head_dim / 2.
#pragma once

#include <cuda_runtime_api.h>

#include "motley/kernels/cuda/element.h"

namespace motley::cuda {

// y = x [T, H, head_dim] turned by the angles of each token's position; table [max_positions, head_dim] fp32:
// cosines, then sines. inverse: turned back. x's tokens lie x_stride elements apart, y is contiguous.
// Positions outside the table give NaN: nothing can be reported from here without waiting for the device.
void rotary(const void* x, Element element, long x_stride, const long* positions, const float* table,
            int max_positions, int num_tokens, int num_heads, int head_dim, bool inverse, void* y,
            cudaStream_t stream);

}  // namespace motley::cuda
