// Division by a run-time constant.
#pragma once

namespace motley::cuda {

// floor(n / d) for 0 <= n < 2^31 by one multiplication.
struct Divisor {
  unsigned divisor = 1, multiplier = 0, shift = 0;
  Divisor() = default;
  explicit Divisor(unsigned d) : divisor(d) {
    while ((1ull << shift) < d) ++shift;
    multiplier = static_cast<unsigned>(((1ull << 32) * ((1ull << shift) - d)) / d + 1);
  }
#ifdef __CUDACC__
  __device__ unsigned divide(unsigned n) const { return (__umulhi(n, multiplier) + n) >> shift; }
#endif
};

}  // namespace motley::cuda
