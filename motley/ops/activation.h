// The activation between an expert's first and second product.
#pragma once

#include <cstdint>
#include <string>

namespace motley {

enum class ActivationKind : int64_t {
  kSwiGlu,         // silu(g) * u
  kGeGlu,          // gelu(g) * u, gelu with erf
  kClampedSwiGlu,  // GPT-OSS: g = min(g, limit), u = clamp(u, +-limit); g * sigmoid(alpha * g) * (u + 1)
  kGelu,           // gelu(h), with erf
  kRelu,           // max(h, 0)
  kSilu,           // h * sigmoid(h)
};

struct Activation {
  ActivationKind kind = ActivationKind::kSwiGlu;
  double alpha = 1.702;  // kClampedSwiGlu only
  double limit = 7.0;    // kClampedSwiGlu only

  // Gated kinds have a first product of width 2F (gate rows, then up rows), the others of width F.
  bool gated() const { return kind <= ActivationKind::kClampedSwiGlu; }
  int64_t hidden_rows(int64_t expert_width) const { return gated() ? 2 * expert_width : expert_width; }
};

// Names as in Hugging Face's hidden_act: "swiglu" and "silu" with gated=true are the same thing.
// Throws c10::Error that lists the known names.
Activation parse_activation(const std::string& name, bool gated);

}  // namespace motley
