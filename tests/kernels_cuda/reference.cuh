// Plain kernels with one thread an output, fp32 sums of bf16 inputs: what the fast ones must give.
#pragma once

#include <cuda_bf16.h>

#include "motley/kernels/cuda/gated_activation.h"

namespace motley::cuda::test {

using bf16 = __nv_bfloat16;

struct Strided {  // element (e, i, j) of per-expert weights
  const bf16* data;
  long place, row, column;
};

// out[r, n] = sum over k of a[index(r), k] * w[place(e), k, n]; index(r) = row_assignment[r] / top_k, or r
// where top_k is 0.
static __global__ void reference_rows(const bf16* a, int depth, const int* row_assignment, int top_k,
                                      const int* row_place, Strided w, int width, int num_rows, float* out) {
  const long at = blockIdx.x * (long)blockDim.x + threadIdx.x, row = at / width, n = at % width;
  if (row >= num_rows || row_place[row] < 0) return;
  const bf16* mine = a + (top_k ? row_assignment[row] / top_k : row) * (long)depth;
  const bf16* weights = w.data + row_place[row] * w.place + n * w.column;
  float sum = 0.f;
  for (int k = 0; k < depth; ++k) sum += __bfloat162float(mine[k]) * __bfloat162float(weights[k * w.row]);
  out[row * width + n] = sum;
}

// out[e, m, n] = sum over rows of a[token(r), m] * b[r, n]
static __global__ void reference_outer(const bf16* a, int height, const int* row_assignment, int top_k,
                                       const int* expert_offset, const bf16* b, int width, int num_experts,
                                       float* out) {
  const long at = blockIdx.x * (long)blockDim.x + threadIdx.x;
  const long expert = at / height / width, m = at / width % height, n = at % width;
  if (expert >= num_experts) return;
  float sum = 0.f;
  for (int r = expert_offset[expert]; r < expert_offset[expert + 1]; ++r)
    sum += __bfloat162float(a[(row_assignment[r] / top_k) * (long)height + m]) *
           __bfloat162float(b[r * (long)width + n]);
  out[at] = sum;
}

}  // namespace motley::cuda::test
