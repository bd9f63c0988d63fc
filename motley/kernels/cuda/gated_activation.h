// The gated activations between an expert's two products, and their derivatives, in fp32.
#pragma once

#ifdef __CUDACC__
#define MOTLEY_HOST_DEVICE __host__ __device__
#else
#define MOTLEY_HOST_DEVICE
#endif

#include <cmath>

namespace motley::cuda {

enum class GatedKind {
  kSwiGlu,         // silu(g) * u
  kGeGlu,          // gelu(g) * u, gelu with erf
  kClampedSwiGlu,  // GPT-OSS: g = min(g, limit), u = clamp(u, +-limit); g * sigmoid(alpha * g) * (u + 1)
};

struct GatedActivation {
  GatedKind kind = GatedKind::kSwiGlu;
  float alpha = 1.702f;
  float limit = 7.0f;
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

struct GatedGradient {
  float value, dg, du;  // the activation, and its derivatives by g and u
};

template <GatedKind kind>
MOTLEY_HOST_DEVICE inline GatedGradient activate_with_gradient(const GatedActivation& activation, float g,
                                                               float u) {
  if constexpr (kind == GatedKind::kSwiGlu) {
    const float s = fast_sigmoid(g), silu = g * s;
    return {silu * u, u * s * (1.f + g - silu), silu};
  } else if constexpr (kind == GatedKind::kGeGlu) {
    const float cdf = 0.5f * (1.f + erff(g * 0.70710678f)), pdf = 0.39894228f * expf(-0.5f * g * g);
    return {g * cdf * u, u * (cdf + g * pdf), g * cdf};
  } else {
    const float limit = activation.limit, alpha = activation.alpha;
    const float gc = fminf(g, limit), uc = fminf(fmaxf(u, -limit), limit) + 1.f;
    const float s = fast_sigmoid(alpha * gc);
    return {gc * s * uc, g <= limit ? uc * s * (1.f + alpha * gc * (1.f - s)) : 0.f,
            u >= -limit && u <= limit ? gc * s : 0.f};
  }
}

template <GatedKind kind>
MOTLEY_HOST_DEVICE inline float activate(const GatedActivation& activation, float g, float u) {
  return activate_with_gradient<kind>(activation, g, u).value;
}

// Calls function.template operator()<kind>(): one branch for a whole tile. (A branch for every element
// made the backward epilogue the bottleneck: 200 TFLOP/s where products alone reached 750.)
template <class Function>
MOTLEY_HOST_DEVICE void with_kind(GatedKind kind, Function function) {
  switch (kind) {
    case GatedKind::kSwiGlu:
      return function.template operator()<GatedKind::kSwiGlu>();
    case GatedKind::kGeGlu:
      return function.template operator()<GatedKind::kGeGlu>();
    case GatedKind::kClampedSwiGlu:
      return function.template operator()<GatedKind::kClampedSwiGlu>();
  }
}

}  // namespace motley::cuda
