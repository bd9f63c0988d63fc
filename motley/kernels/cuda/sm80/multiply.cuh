// The products of one warp, 64 x 64, from shared memory. A thread holds the same elements of the result for
// all types: sum[i][j][2 h + c] is row 16 i + 8 h + lane / 4, column 8 j + 2 (lane % 4) + c.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "motley/kernels/cuda/sm80/load.cuh"

namespace motley::cuda::sm80 {

constexpr int kTilesM = kWarpTile / 16, kTilesN = kWarpTile / 8;
using Sum = float[kTilesM][kTilesN][4];

template <bool transposed>
__device__ void load_matrices(uint32_t (&to)[4], uint32_t from) {
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from));
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from));
}

template <class T>
__device__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void multiply_add<__half>(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16-bit types: a step of K is two of mma's. The operands of the second are read while the first is
// multiplied, those of the next step's first while the second is, a quarter of each at a time.
template <class T, bool a_major_k, bool b_major_k>
class Multiplier {
 public:
  __device__ Multiplier() {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int m = warp % kWarpsM * kWarpTile, n = warp / kWarpsM * kWarpTile;
    if constexpr (a_major_k) {
      const int line = m + lane % 16;
      a_at_ = line * kLineBytes + ((lane / 16) ^ (line / 2 % 4)) * 16;
    } else {
      const int line = lane / 16 * 8 + lane % 8;
      a_at_ = line * kTileM * 2 + m * 2 + ((lane / 8 % 2) ^ (line % 8)) * 16;
    }
    if constexpr (b_major_k) {
      const int line = n + lane / 16 * 8 + lane % 8;
      b_at_ = kStageABytes + line * kLineBytes + ((lane / 8 % 2) ^ (line / 2 % 4)) * 16;
    } else {
      const int line = lane % 16;
      b_at_ = kStageABytes + line * kTileN * 2 + n * 2 + ((lane / 16) ^ (line % 8)) * 16;
    }
  }

  __device__ void read_first(uint32_t stage, int quarter) { read<0>(stage, quarter); }
  __device__ void read_second(uint32_t stage, int quarter) { read<1>(stage, quarter); }
  __device__ void multiply_first(Sum& sum, uint32_t, int quarter) { multiply<0>(sum, quarter); }
  __device__ void multiply_second(Sum& sum, int quarter) { multiply<1>(sum, quarter); }

 private:
  // Chunks of a line are told apart by bits that the exchange of chunks leaves to exclusive or.
  template <int half>
  __device__ void read(uint32_t stage, int i) {
    load_matrices<!a_major_k>(a_[half][i], stage + (a_major_k ? (a_at_ ^ (half * 32)) + i * 16 * kLineBytes
                                                              : (a_at_ ^ (i * 32)) + half * 16 * kTileM * 2));
    load_matrices<!b_major_k>(b_[half][i], stage + (b_major_k ? (b_at_ ^ (half * 32)) + i * 16 * kLineBytes
                                                              : (b_at_ ^ (i * 32)) + half * 16 * kTileN * 2));
  }
  template <int half>
  __device__ void multiply(Sum& sum, int i) {
#pragma unroll
    for (int jj = 0; jj < kTilesN; ++jj) {
      const int j = i % 2 ? kTilesN - 1 - jj : jj;  // to and fro: the last operand is used again at once
      multiply_add<T>(sum[i][j], a_[half][i], b_[half][j / 2][j % 2 * 2], b_[half][j / 2][j % 2 * 2 + 1]);
    }
  }

  uint32_t a_at_, b_at_;
  uint32_t a_[2][kTilesM][4], b_[2][kTilesN / 2][4];
};

// fp32 by plain multiply-adds, four k at a time.
template <bool a_major_k, bool b_major_k>
class Multiplier<float, a_major_k, b_major_k> {
 public:
  __device__ Multiplier()
      : a_line_(threadIdx.x / 32 % kWarpsM * kWarpTile + threadIdx.x % 32 / 4),
        b_line_(threadIdx.x / 32 / kWarpsM * kWarpTile + threadIdx.x % 4 * 2) {}

  __device__ void read_first(uint32_t, int) {}
  __device__ void read_second(uint32_t, int) {}
  __device__ void multiply_second(Sum&, int) {}
  // A quarter is four k.
  __device__ void multiply_first(Sum& sum, uint32_t stage, int quarter) {
    const int k = 4 * quarter;
    float a[2 * kTilesM][4];
#pragma unroll
    for (int i = 0; i < 2 * kTilesM; ++i) read_line<a_major_k, kTileM>(a[i], stage, a_line_ + 8 * i, k);
#pragma unroll
    for (int j = 0; j < kTilesN; ++j) {
      float b[2][4];
      for (int c = 0; c < 2; ++c)
        read_line<b_major_k, kTileN>(b[c], stage + kStageABytes, b_line_ + 8 * j + c, k);
#pragma unroll
      for (int at = 0; at < 4; ++at)
#pragma unroll
        for (int i = 0; i < 2 * kTilesM; ++i)
          for (int c = 0; c < 2; ++c) {
            float& element = sum[i / 2][j][i % 2 * 2 + c];
            element = fmaf(a[i][at], b[c][at], element);
          }
    }
  }

 private:
  template <bool major_k, int columns>
  __device__ static void read_line(float (&to)[4], uint32_t from, int line, int k) {
    if constexpr (major_k) {
      const uint32_t at = from + line * kLineBytes + ((k / 4) ^ (line / 2 % 4)) * 16;
      asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(to[0]), "=f"(to[1]), "=f"(to[2]), "=f"(to[3])
                   : "r"(at));
    } else {
      for (int i = 0; i < 4; ++i) {
        const uint32_t at = from + (k + i) * columns * 4 + ((line / 4) ^ ((k + i) % 8)) * 16 + line % 4 * 4;
        asm volatile("ld.shared.f32 %0, [%1];" : "=f"(to[i]) : "r"(at));
      }
    }
  }

  int a_line_, b_line_;
};

}  // namespace motley::cuda::sm80
