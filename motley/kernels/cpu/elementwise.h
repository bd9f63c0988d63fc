// Rows in, rows out: conversions, activations, sums. Shared by all families (see simd.h).
#pragma once

#include "motley/kernels/cpu/simd.h"
#include "motley/kernels/cpu/table.h"

namespace motley::kernels {
namespace {

template <int W>
struct Elementwise {
  using S = Simd<W>;
  using F = typename S::F;

  struct Slope {
    F value, gate, up;  // A, dA/dgate, dA/dup
  };

  static F gelu(F x) { return 0.5f * x * (1.0f + S::erf(x * 0.70710678f)); }
  static F gelu_slope(F x) {
    return 0.5f * (1.0f + S::erf(x * 0.70710678f)) + x * 0.39894228f * S::exp(-0.5f * x * x);
  }

  static F value(const ActivationSpec& spec, F g, F u) {
    switch (spec.kind) {
      case Activation::kSwiGlu:
        return g * S::sigmoid(g) * u;
      case Activation::kGeGlu:
        return gelu(g) * u;
      case Activation::kClampedSwiGlu: {
        const F limit = S::set(spec.limit);
        const F gate = S::min(limit, g);
        return gate * S::sigmoid(spec.alpha * gate) * (S::min(limit, S::max(-limit, u)) + 1.0f);
      }
      case Activation::kGelu:
        return gelu(g);
      case Activation::kRelu:
        return S::max(F{}, g);
      case Activation::kSilu:
        return g * S::sigmoid(g);
    }
    return F{};
  }

  static Slope slope(const ActivationSpec& spec, F g, F u) {
    switch (spec.kind) {
      case Activation::kSwiGlu: {
        const F s = S::sigmoid(g);
        return {g * s * u, u * s * (1.0f + g * (1.0f - s)), g * s};
      }
      case Activation::kGeGlu: {
        const F a = gelu(g);
        return {a * u, u * gelu_slope(g), a};
      }
      case Activation::kClampedSwiGlu: {
        const F limit = S::set(spec.limit);
        const F gate = S::min(limit, g);
        const F up = S::min(limit, S::max(-limit, u)) + 1.0f;
        const F s = S::sigmoid(spec.alpha * gate);
        const F d = up * s * (1.0f + spec.alpha * gate * (1.0f - s));
        return {gate * s * up, S::select(g > limit, F{}, d),
                S::select((u <= limit) & (u >= -limit), gate * s, F{})};
      }
      case Activation::kGelu:
        return {gelu(g), gelu_slope(g), F{}};
      case Activation::kRelu:
        return {S::max(F{}, g), S::select(g <= 0.0f, F{}, S::set(1.0f)), F{}};
      case Activation::kSilu: {
        const F s = S::sigmoid(g);
        return {g * s, s * (1.0f + g * (1.0f - s)), F{}};
      }
    }
    return {F{}, F{}, F{}};
  }

  static void activate(const ActivationSpec& spec, const float* gate, const float* up, int64_t count,
                       float* a) {
    const bool gated = spec.gated();
    for (int64_t i = 0; i < count; i += W) {
      const F g = S::load_some(DType::kFloat32, gate, i, count - i);
      const F u = gated ? S::load_some(DType::kFloat32, up, i, count - i) : F{};
      S::store_some(DType::kFloat32, a, i, count - i, value(spec, g, u));
    }
  }

  static float activate_backward(const ActivationSpec& spec, const float* da, DType type, const void* gate,
                                 const void* up, float gate_weight, int64_t count, void* dgate, void* dup,
                                 void* activated) {
    const bool gated = spec.gated();
    F product{};
    for (int64_t i = 0; i < count; i += W) {
      const int64_t n = count - i;
      const F u = gated ? S::load_some(type, up, i, n) : F{};
      const Slope s = slope(spec, S::load_some(type, gate, i, n), u);
      const F d = S::load_some(DType::kFloat32, da, i, n);
      product += d * s.value;
      S::store_some(type, dgate, i, n, gate_weight * d * s.gate);
      if (gated) S::store_some(type, dup, i, n, gate_weight * d * s.up);
      S::store_some(type, activated, i, n, gate_weight * s.value);
    }
    return S::sum(product);
  }

  static void convert(DType type, const void* in, int64_t count, DType out_type, void* out) {
    for (int64_t i = 0; i < count; i += W) {
      S::store_some(out_type, out, i, count - i, S::load_some(type, in, i, count - i));
    }
  }

  static void store(const float* c, int64_t count, DType type, void* out, bool accumulate) {
    for (int64_t i = 0; i < count; i += W) {
      F v = S::load_some(DType::kFloat32, c, i, count - i);
      if (accumulate) v += S::load_some(type, out, i, count - i);
      S::store_some(type, out, i, count - i, v);
    }
  }

  static float rms_norm(DType type, const void* x, const void* weight, int64_t count, double eps, void* y) {
    F squares{};
    for (int64_t i = 0; i < count; i += W) {
      const F v = S::load_some(type, x, i, count - i);
      squares += v * v;
    }
    const double mean = S::sum(squares) / static_cast<double>(count);
    const auto scale = static_cast<float>(1.0 / __builtin_sqrt(mean + eps));
    for (int64_t i = 0; i < count; i += W) {
      const F v = S::load_some(type, x, i, count - i) * scale * S::load_some(type, weight, i, count - i);
      S::store_some(type, y, i, count - i, v);
    }
    return scale;
  }

  // dx = s (w dy - x s^2 mean(w dy x)), dw += dy x s
  static void rms_norm_backward(DType type, const void* dy, const void* x, const void* weight, int64_t count,
                                float scale, void* dx, float* dweight) {
    F dot{};
    for (int64_t i = 0; i < count; i += W) {
      const int64_t n = count - i;
      dot += S::load_some(type, dy, i, n) * S::load_some(type, weight, i, n) * S::load_some(type, x, i, n);
    }
    const float mean = S::sum(dot) * scale * scale / static_cast<float>(count);
    for (int64_t i = 0; i < count; i += W) {
      const int64_t n = count - i;
      const F gradient = S::load_some(type, dy, i, n), v = S::load_some(type, x, i, n);
      S::store_some(type, dx, i, n, scale * (gradient * S::load_some(type, weight, i, n) - v * mean));
      const F sum = S::load_some(DType::kFloat32, dweight, i, n) + gradient * v * scale;
      S::store_some(DType::kFloat32, dweight, i, n, sum);
    }
  }

  // Pairs (x[i], x[i + half]) turned by angles of the given cosines and sines, those times `sign`.
  static void rotate(DType type, const void* x, const float* cosine, const float* sine, float sign,
                     int64_t half, void* y) {
    for (int64_t i = 0; i < half; i += W) {
      const int64_t n = half - i;
      const F a = S::load_some(type, x, i, n), b = S::load_some(type, offset(x, type, half), i, n);
      const F c = S::load_some(DType::kFloat32, cosine, i, n);
      const F s = sign * S::load_some(DType::kFloat32, sine, i, n);
      S::store_some(type, y, i, n, a * c - b * s);
      S::store_some(type, offset(y, type, half), i, n, b * c + a * s);
    }
  }

  // Four vectors at a time: their adds do not wait for each other.
  static void weighted_sum(DType type, Rows rows, const float* weights, int64_t num_rows, int64_t first,
                           int64_t count, DType out_type, void* out, bool accumulate) {
    int64_t i = 0;
    for (; i + 4 * W <= count; i += 4 * W) {
      F sum[4] = {};
      for (int64_t n = 0; n < num_rows; ++n) {
        const float weight = weights ? weights[n] : 1.0f;
        for (int v = 0; v < 4; ++v) sum[v] += weight * S::load(type, rows[n], first + i + v * W);
      }
      for (int v = 0; v < 4; ++v) {
        if (accumulate) sum[v] += S::load(out_type, out, i + v * W);
        S::store(out_type, out, i + v * W, sum[v]);
      }
    }
    for (; i < count; i += W) {
      F sum{};
      for (int64_t n = 0; n < num_rows; ++n) {
        sum += (weights ? weights[n] : 1.0f) * S::load_some(type, rows[n], first + i, count - i);
      }
      if (accumulate) sum += S::load_some(out_type, out, i, count - i);
      S::store_some(out_type, out, i, count - i, sum);
    }
  }
};

}  // namespace
}  // namespace motley::kernels
