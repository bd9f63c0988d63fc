// What happens to 64 finished rows (or columns) in shared memory. kEpilogueWarps warps share them.
#pragma once

#include "motley/kernels/cuda/gated_activation.h"
#include "motley/kernels/cuda/sm90/pipeline.cuh"

namespace motley::cuda::sm90 {

// Eight bf16 values, the unit of every access to memory.
union Chunk {
  uint4 bits;
  __nv_bfloat162 pair[4];
  __device__ float2 get(int i) const { return __bfloat1622float2(pair[i]); }
  __device__ void set(int i, float low, float high) { pair[i] = __floats2bfloat162_rn(low, high); }
};

__device__ inline Chunk read_finished(const Element* finished, int row, int column) {
  return {*reinterpret_cast<const uint4*>(finished + row * kPitch + column)};
}

__device__ inline void write_chunk(__nv_bfloat16* to, const Chunk& chunk) {
  *reinterpret_cast<uint4*>(to) = chunk.bits;
}

// Rows [begin, row_end) of out [.., width], columns from n_tile * 256: a warp writes a row at a time.
__device__ inline void store_rows(__nv_bfloat16* out, long stride, int begin, int row_end, int n_tile,
                                  int width, const Element* finished, int warp, int lane) {
  const int column = n_tile * kTileN + lane * 8;
  if (column >= width) return;
#pragma unroll 8
  for (int row = warp; row < kBlockRows; row += kEpilogueWarps)
    if (begin + row < row_end)
      write_chunk(out + (begin + row) * stride + column, read_finished(finished, row, lane * 8));
}

// The same from a transposed tile: row n of out is finished column n, 64 columns from `begin`.
__device__ inline void store_transposed(__nv_bfloat16* out, long stride, int begin, int width, int n_tile,
                                        int height, const Element* finished, int warp, int lane) {
  const int column = begin + lane % 8 * 8;
  if (column >= width) return;
#pragma unroll 8
  for (int n = warp * 4 + lane / 8; n < kTileN; n += 4 * kEpilogueWarps)
    if (n_tile * kTileN + n < height)
      write_chunk(out + (n_tile * kTileN + n) * stride + column,
                  {*reinterpret_cast<const uint4*>(finished + n * kTransposedPitch + lane % 8 * 8)});
}

}  // namespace motley::cuda::sm90
