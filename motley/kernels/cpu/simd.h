// Vectors of W floats for the code that all families share. Everything here and in the headers built on
// it lies in an anonymous namespace on purpose: each family's file compiles its own copy with its own
// instructions, and the linker must never take one for another.
#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "motley/kernels/cpu/types.h"

namespace motley::kernels {
namespace {

// GCC 12 ignores vector_size where it depends on a template's parameter.
template <int W>
struct VectorTypes;
#define MOTLEY_VECTOR_TYPES(W)                              \
  template <>                                               \
  struct VectorTypes<W> {                                   \
    typedef float F __attribute__((vector_size(W * 4)));    \
    typedef int32_t I __attribute__((vector_size(W * 4)));  \
    typedef uint32_t U __attribute__((vector_size(W * 4))); \
    typedef uint16_t H __attribute__((vector_size(W * 2))); \
  };
MOTLEY_VECTOR_TYPES(4)
MOTLEY_VECTOR_TYPES(8)
MOTLEY_VECTOR_TYPES(16)
#undef MOTLEY_VECTOR_TYPES

// fp32 to bf16, to nearest even. A family that has an instruction for it specialises this.
template <int W>
struct Rounding {
  using U = typename VectorTypes<W>::U;
  static typename VectorTypes<W>::H to_bf16(typename VectorTypes<W>::F v) {
    const U bits = (U)v;
    const U rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    const U nan = (bits >> 16) | 0x40u;  // rounding up would make an infinity of some
    const U kept = (U)(v != v);
    return __builtin_convertvector(((nan & kept) | ((rounded >> 16) & ~kept)), typename VectorTypes<W>::H);
  }
};

template <int W>
struct Simd {
  using F = typename VectorTypes<W>::F;
  using I = typename VectorTypes<W>::I;
  using U = typename VectorTypes<W>::U;
  using H = typename VectorTypes<W>::H;

  static F set(float value) { return F{} + value; }
  static F load(const void* from) {
    F v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }
  static void store(void* to, F v) { __builtin_memcpy(to, &v, sizeof v); }
  static F select(I mask, F yes, F no) { return (F)(((I)yes & mask) | ((I)no & ~mask)); }
  // b where either is not a number: data stands second, so that NaN comes through.
  static F min(F a, F b) { return select(a < b, a, b); }
  static F max(F a, F b) { return select(a > b, a, b); }

  static F from_bf16(H h) {
#ifdef __AVX512F__  // GCC 12 makes a dozen instructions of the conversion
    if constexpr (W == 16) return (F)((U)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)h) << 16);
#endif
    return (F)(__builtin_convertvector(h, U) << 16);
  }
  static H to_bf16(F v) { return Rounding<W>::to_bf16(v); }

  static F load(DType type, const void* data, int64_t i) {
    if (type == DType::kFloat32) return load(static_cast<const float*>(data) + i);
    H h;
    __builtin_memcpy(&h, static_cast<const uint16_t*>(data) + i, sizeof h);
    return from_bf16(h);
  }
  static void store(DType type, void* data, int64_t i, F v) {
    if (type == DType::kFloat32) return store(static_cast<float*>(data) + i, v);
    const H h = to_bf16(v);
    __builtin_memcpy(static_cast<uint16_t*>(data) + i, &h, sizeof h);
  }
  // The last, partial vector of a row: n < W elements.
  static F load_part(DType type, const void* data, int64_t i, int64_t n) {
    alignas(64) uint8_t buffer[W * 4] = {};
    __builtin_memcpy(buffer, offset(data, type, i), static_cast<size_t>(n * size_of(type)));
    return load(type, buffer, 0);
  }
  static void store_part(DType type, void* data, int64_t i, int64_t n, F v) {
    alignas(64) uint8_t buffer[W * 4];
    store(type, buffer, 0, v);
    __builtin_memcpy(offset(data, type, i), buffer, static_cast<size_t>(n * size_of(type)));
  }
  static F load_some(DType type, const void* data, int64_t i, int64_t n) {
    return n >= W ? load(type, data, i) : load_part(type, data, i, n);
  }
  static void store_some(DType type, void* data, int64_t i, int64_t n, F v) {
    n >= W ? store(type, data, i, v) : store_part(type, data, i, n, v);
  }

  static float sum(F v) {
    if constexpr (W == 4) {
      return (v[0] + v[2]) + (v[1] + v[3]);
    } else {
      typename VectorTypes<W / 2>::F half[2];
      __builtin_memcpy(half, &v, sizeof half);
      return Simd<W / 2>::sum(half[0] + half[1]);
    }
  }

  // Relative error below 2e-7 from -87 to 88; saturates outside, infinities too.
  static F exp(F x) {
    x = min(set(88.0f), max(set(-87.0f), x));
    const F magic = set(12582912.0f);  // adding it rounds to a whole number
    const F shifted = x * 1.44269504f + magic;
    const F n = shifted - magic;
    const F r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    F p = set(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const I scale = ((I)shifted - (I)magic + 127) << 23;
    return p * (F)scale;
  }
  static F sigmoid(F x) { return 1.0f / (1.0f + exp(-x)); }
  // Abramowitz and Stegun 7.1.26: absolute error below 2e-7, as good as fp32 needs after x * (1 + erf).
  static F erf(F x) {
    const F a = max(x, -x);
    const F t = 1.0f / (1.0f + 0.3275911f * a);
    F p = 1.061405429f * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const F y = 1.0f - p * t * exp(-a * a);
    return select(x < 0.0f, -y, y);
  }
};

}  // namespace
}  // namespace motley::kernels
