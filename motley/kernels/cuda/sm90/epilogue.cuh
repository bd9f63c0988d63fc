// What happens to 64 finished rows (or columns) in shared memory. kEpilogueWarps warps share them.
#pragma once

#include "motley/kernels/cuda/activation.h"
#include "motley/kernels/cuda/sm90/pipeline.cuh"

namespace motley::cuda::sm90 {

// For epilogues that have nothing to do before a tile is finished.
struct NoPreparation {
  template <class Params, class Storage>
  __device__ NoPreparation(const Params&, Storage&, int, int, int) {}
  __device__ void start_tile() {}
  template <class Params>
  __device__ void prepare(const Params&, const Work&, int, int, int, int) {}
};

// Eight bf16 values, the unit of every access to memory.
struct Chunk {
  uint4 bits;
  __device__ float2 get(int i) const {  // a bf16 is the upper half of a float
    const uint32_t pair = (&bits.x)[i];
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
  }
  __device__ void set(int i, float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    (&bits.x)[i] = reinterpret_cast<const uint32_t&>(pair);
  }
};

__device__ inline Chunk read_finished(const Element* finished, int row, int column) {
  return {*reinterpret_cast<const uint4*>(reinterpret_cast<const char*>(finished) +
                                          finished_offset<false>(row, column / 8))};
}

__device__ inline void write_chunk(__nv_bfloat16* to, const Chunk& chunk) {
  // Spelled out: left to itself the compiler once made four stores of it. Streaming, so that results do not
  // push out of L2 what other tiles still read; no clobber, so that reads may overtake it.
  asm volatile("st.global.cs.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(chunk.bits.x), "r"(chunk.bits.y),
               "r"(chunk.bits.z), "r"(chunk.bits.w));
}

__device__ inline void write_chunk_if(bool valid, __nv_bfloat16* to, const Chunk& chunk) {
  asm volatile(
      "{\n.reg .pred valid;\nsetp.ne.b32 valid, %5, 0;\n@valid st.global.cs.v4.b32 [%0], {%1, %2, %3, "
      "%4};\n}" ::"l"(to),
      "r"(chunk.bits.x), "r"(chunk.bits.y), "r"(chunk.bits.z), "r"(chunk.bits.w), "r"(int(valid)));
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
                  {*reinterpret_cast<const uint4*>(reinterpret_cast<const char*>(finished) +
                                                   finished_offset<true>(n, lane % 8))});
}

}  // namespace motley::cuda::sm90
