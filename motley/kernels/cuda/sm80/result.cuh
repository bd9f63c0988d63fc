// A thread's part of the result on its way from and to memory, 32 columns of a row at a time: it holds the
// pairs of columns 8 j + 2 (lane % 4). For 16-bit types the four threads of a row exchange their pairs so
// that each has eight columns in a row, one 16-byte access.
#pragma once

#include "motley/kernels/cuda/element.h"
#include "motley/kernels/cuda/sm80/multiply.cuh"

namespace motley::cuda::sm80 {

constexpr int kPairs = 4;
using Pairs = float2[kPairs];

// Word j of thread q becomes word q of thread j.
__device__ inline void exchange_words(uint32_t (&words)[kPairs]) {
#pragma unroll
  for (int bit = 1; bit < kPairs; bit *= 2) {
    const bool upper = threadIdx.x & bit;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (i & bit) continue;
      const uint32_t other = __shfl_xor_sync(kAllLanes, upper ? words[i] : words[i + bit], bit);
      (upper ? words[i] : words[i + bit]) = other;
    }
  }
}

template <class T>
struct PairOf;
template <>
struct PairOf<__nv_bfloat16> {
  using Type = __nv_bfloat162;
  __device__ static Type from(float2 v) { return __float22bfloat162_rn(v); }
  __device__ static float2 to(Type v) { return __bfloat1622float2(v); }
};
template <>
struct PairOf<__half> {
  using Type = __half2;
  __device__ static Type from(float2 v) { return __float22half2_rn(v); }
  __device__ static float2 to(Type v) { return __half22float2(v); }
};
template <>
struct PairOf<float> {
  using Type = float2;
  __device__ static Type from(float2 v) { return v; }
  __device__ static float2 to(Type v) { return v; }
};

template <class T>
__device__ float2 round_pair(float2 value) {
  return PairOf<T>::to(PairOf<T>::from(value));
}

// Columns [0, left) of the 32 exist (left divisible by 8). All threads of the warp must come here.
template <class T>
__device__ void store_pairs(T* row, bool valid, int left, const Pairs& values) {
  using Pair = PairOf<T>;
  const int q = threadIdx.x % 4;
  if constexpr (sizeof(T) == 2) {
    uint32_t words[kPairs];
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      const typename Pair::Type pair = Pair::from(values[j]);
      words[j] = reinterpret_cast<const uint32_t&>(pair);
    }
    exchange_words(words);
    if (valid && 8 * q < left)
      __stcs(reinterpret_cast<uint4*>(row + 8 * q), make_uint4(words[0], words[1], words[2], words[3]));
  } else {
#pragma unroll
    for (int j = 0; j < kPairs; ++j)
      if (valid && 8 * j < left) __stcs(reinterpret_cast<float2*>(row + 8 * j + 2 * q), values[j]);
  }
}

// The same the other way, in two steps, so that the first can be taken early. Zeros where there is nothing.
template <class T>
struct RawPairs {
  static constexpr int kVectors = sizeof(T) / 2;
  uint4 bits[kVectors];
};

// constant: nothing writes there while the kernel runs.
template <bool constant, class T>
__device__ void read_pairs(const T* row, bool valid, int left, RawPairs<T>& raw) {
  const int q = threadIdx.x % 4;
  const auto load = [](const auto* from) { return constant ? __ldg(from) : *from; };
  if constexpr (sizeof(T) == 2) {
    raw.bits[0] = valid && 8 * q < left ? load(reinterpret_cast<const uint4*>(row + 8 * q)) : uint4{};
  } else {
    float2* values = reinterpret_cast<float2*>(raw.bits);
#pragma unroll
    for (int j = 0; j < kPairs; ++j)
      values[j] =
          valid && 8 * j < left ? load(reinterpret_cast<const float2*>(row + 8 * j + 2 * q)) : float2{};
  }
}

template <class T>
__device__ void get_pairs(const RawPairs<T>& raw, Pairs& values) {
  if constexpr (sizeof(T) == 2) {
    uint32_t words[kPairs] = {raw.bits[0].x, raw.bits[0].y, raw.bits[0].z, raw.bits[0].w};
    exchange_words(words);
#pragma unroll
    for (int j = 0; j < kPairs; ++j)
      values[j] = PairOf<T>::to(reinterpret_cast<const typename PairOf<T>::Type&>(words[j]));
  } else {
#pragma unroll
    for (int j = 0; j < kPairs; ++j) values[j] = reinterpret_cast<const float2*>(raw.bits)[j];
  }
}

// A thread's columns of a vector; zeros without one.
template <class T>
__device__ void load_bias(const T* bias, int left, Pairs& values) {
  using Pair = PairOf<T>;
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const bool inside = bias && 8 * j < left;
    values[j] =
        inside ? Pair::to(*reinterpret_cast<const typename Pair::Type*>(bias + 8 * j + 2 * (threadIdx.x % 4)))
               : float2{};
  }
}

// Rows and columns of this thread's warp within the block's tile.
__device__ inline int warp_row() { return threadIdx.x / 32 % kWarpsM * kWarpTile + threadIdx.x % 32 / 4; }
__device__ inline int warp_column() { return threadIdx.x / 32 / kWarpsM * kWarpTile; }

// Calls function(line, h, row) for the 8 rows of this thread: its part is line[..][n h] up to n (h + 1), n
// half the numbers of a row tile; row counts from the tile's first. The row tiles move through one place, so
// that the code of a finish, which can be long, exists twice and not eight times.
template <class Value, int count, class Function>
__device__ void for_each_row(Value (&sum)[kTilesM][kTilesN][count], Function function) {
#pragma unroll 1
  for (int i = 0; i < kTilesM; ++i) {
    const int row = warp_row() + 16 * i;
    function(sum[0], 0, row);
    function(sum[0], 1, row + 8);
#pragma unroll
    for (int j = 0; j < kTilesN; ++j)
#pragma unroll
      for (int c = 0; c < count; ++c) {
        const Value first = sum[0][j][c];
#pragma unroll
        for (int to = 0; to + 1 < kTilesM; ++to) sum[to][j][c] = sum[to + 1][j][c];
        sum[kTilesM - 1][j][c] = first;  // around, so that a second walk finds all in place
      }
  }
}

// The 32 columns from 32 * part.
__device__ inline void get_pairs(const float (&line)[kTilesN][4], int h, int part, Pairs& values) {
#pragma unroll
  for (int j = 0; j < kPairs; ++j)
    values[j] = {line[part * kPairs + j][2 * h], line[part * kPairs + j][2 * h + 1]};
}

// Sums rounded to T: half the registers, where a finish needs them.
template <class T>
using RoundedSum = typename PairOf<T>::Type[kTilesM][kTilesN][2];

template <class T>
__device__ void round_sum(const Sum& sum, RoundedSum<T>& rounded) {
#pragma unroll
  for (int i = 0; i < kTilesM; ++i)
#pragma unroll
    for (int j = 0; j < kTilesN; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        rounded[i][j][h] = PairOf<T>::from({sum[i][j][2 * h], sum[i][j][2 * h + 1]});
}

template <class T>
__device__ void get_rounded(const typename PairOf<T>::Type (&line)[kTilesN][2], int h, int part,
                            Pairs& values) {
#pragma unroll
  for (int j = 0; j < kPairs; ++j) values[j] = PairOf<T>::to(line[part * kPairs + j][h]);
}

__device__ inline void add_pairs(Pairs& to, const Pairs& values) {
#pragma unroll
  for (int j = 0; j < kPairs; ++j) to[j].x += values[j].x, to[j].y += values[j].y;
}

}  // namespace motley::cuda::sm80
