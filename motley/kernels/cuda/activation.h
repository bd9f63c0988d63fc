// The activations between an expert's two products, and their derivatives, in fp32.
#pragma once

#ifdef __CUDACC__
#define MOTLEY_HOST_DEVICE __host__ __device__
#else
#define MOTLEY_HOST_DEVICE
#endif

#include <cmath>

namespace motley::cuda {

// The order is that of motley::ActivationKind, and kNone.
enum class ActivationKind {
  kSwiGlu,         // silu(g) * u
  kGeGlu,          // gelu(g) * u, gelu with erf
  kClampedSwiGlu,  // GPT-OSS: g = min(g, limit), u = clamp(u, +-limit); g * sigmoid(alpha * g) * (u + 1)
  kGelu,           // gelu(g), with erf
  kRelu,           // max(g, 0)
  kSilu,           // silu(g)
  kNone,           // g
};

constexpr bool is_gated(ActivationKind kind) { return kind <= ActivationKind::kClampedSwiGlu; }

struct Activation {
  ActivationKind kind = ActivationKind::kSwiGlu;
  float alpha = 1.702f;  // kClampedSwiGlu only
  float limit = 7.0f;    // kClampedSwiGlu only

  constexpr bool gated() const { return is_gated(kind); }
  constexpr int hidden_width(int expert_width) const { return gated() ? 2 * expert_width : expert_width; }
};

MOTLEY_HOST_DEVICE inline float fast_sigmoid(float x) {
#ifdef __CUDA_ARCH__
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-1.44269504f * x));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.f + power));
  return inverse;
#else
  return 1.f / (1.f + std::exp(-x));
#endif
}

struct ActivationGradient {
  float value, dg, du;  // the activation, and its derivatives by g and u (0 where there is no u)
};

template <ActivationKind kind>
MOTLEY_HOST_DEVICE inline ActivationGradient activate_with_gradient(const Activation& activation, float g,
                                                                    float u) {
  using K = ActivationKind;
  if constexpr (kind == K::kSwiGlu || kind == K::kSilu) {
    const float s = fast_sigmoid(g), silu = g * s, slope = s * (1.f + g - silu);
    if constexpr (kind == K::kSilu) return {silu, slope, 0.f};
    return {silu * u, u * slope, silu};
  } else if constexpr (kind == K::kGeGlu || kind == K::kGelu) {
    const float cdf = 0.5f * (1.f + erff(g * 0.70710678f)), pdf = 0.39894228f * expf(-0.5f * g * g);
    if constexpr (kind == K::kGelu) return {g * cdf, cdf + g * pdf, 0.f};
    return {g * cdf * u, u * (cdf + g * pdf), g * cdf};
  } else if constexpr (kind == K::kClampedSwiGlu) {
    const float limit = activation.limit, alpha = activation.alpha;
    // Written so that a NaN stays one.
    const float gc = g > limit ? limit : g, uc = (u > limit ? limit : u < -limit ? -limit : u) + 1.f;
    const float s = fast_sigmoid(alpha * gc);
    return {gc * s * uc, g <= limit ? uc * s * (1.f + alpha * gc * (1.f - s)) : 0.f,
            u >= -limit && u <= limit ? gc * s : 0.f};
  } else if constexpr (kind == K::kRelu) {
    return {g < 0.f ? 0.f : g, g > 0.f ? 1.f : 0.f, 0.f};
  } else {
    return {g, 1.f, 0.f};
  }
}

template <ActivationKind kind>
MOTLEY_HOST_DEVICE inline float activate(const Activation& activation, float g, float u) {
  return activate_with_gradient<kind>(activation, g, u).value;
}

// Calls function.template operator()<kind>(): one branch for a whole tile. (A branch for every element
// made the backward epilogue the bottleneck: 200 TFLOP/s where products alone reached 750.)
template <class Function>
MOTLEY_HOST_DEVICE void with_kind(ActivationKind kind, Function function) {
  using K = ActivationKind;
  switch (kind) {
    case K::kSwiGlu:
      return function.template operator()<K::kSwiGlu>();
    case K::kGeGlu:
      return function.template operator()<K::kGeGlu>();
    case K::kClampedSwiGlu:
      return function.template operator()<K::kClampedSwiGlu>();
    case K::kGelu:
      return function.template operator()<K::kGelu>();
    case K::kRelu:
      return function.template operator()<K::kRelu>();
    case K::kSilu:
      return function.template operator()<K::kSilu>();
    case K::kNone:
      return function.template operator()<K::kNone>();
  }
}

}  // namespace motley::cuda
