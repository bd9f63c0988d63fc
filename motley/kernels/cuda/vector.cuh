// Elements as a thread of a memory-bound kernel reads and writes them; in fp32 to whoever looks at one.
#pragma once

#include "motley/kernels/cuda/element.h"

namespace motley::cuda {

// Eight at once, in pieces of 16 bytes: addresses are divisible by 16.
template <class T>
struct Vector {
  static constexpr int kSize = 8;
  uint4 pieces[sizeof(T) / 2];
  __device__ float operator[](int i) const { return to_float(reinterpret_cast<const T*>(pieces)[i]); }
};

// One at a time, for every width and address.
template <class T>
struct Scalar {
  static constexpr int kSize = 1;
  T value;
  __device__ float operator[](int) const { return to_float(value); }
};

template <template <class> class V, class T>
__device__ V<T> load(const T* from) {
  return *reinterpret_cast<const V<T>*>(from);
}
template <class T>
__device__ Vector<T> load(const T* from) {
  return load<Vector>(from);
}

template <class T>
__device__ void store(T* to, const float (&values)[8]) {
  Vector<T> vector;
#pragma unroll
  for (int i = 0; i < 8; ++i) reinterpret_cast<T*>(vector.pieces)[i] = from_float<T>(values[i]);
  *reinterpret_cast<Vector<T>*>(to) = vector;
}
template <class T>
__device__ void store(T* to, const float (&values)[1]) {
  *to = from_float<T>(values[0]);
}

}  // namespace motley::cuda
