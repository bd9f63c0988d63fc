#include "motley/ops/activation.h"

#include <c10/util/Exception.h>

#include <array>
#include <string_view>

namespace motley {
namespace {

struct NamedActivation {
  std::string_view name;
  ActivationKind gated;
  ActivationKind plain;
  bool has_gated, has_plain;
};

constexpr NamedActivation both(std::string_view name, ActivationKind gated, ActivationKind plain) {
  return {name, gated, plain, true, true};
}
constexpr NamedActivation gated_only(std::string_view name, ActivationKind kind) {
  return {name, kind, kind, true, false};
}
constexpr NamedActivation plain_only(std::string_view name, ActivationKind kind) {
  return {name, kind, kind, false, true};
}

constexpr std::array kActivations = {
    both("silu", ActivationKind::kSwiGlu, ActivationKind::kSilu),
    both("swish", ActivationKind::kSwiGlu, ActivationKind::kSilu),
    both("gelu", ActivationKind::kGeGlu, ActivationKind::kGelu),
    plain_only("relu", ActivationKind::kRelu),
    gated_only("swiglu", ActivationKind::kSwiGlu),
    gated_only("geglu", ActivationKind::kGeGlu),
    gated_only("clamped_swiglu", ActivationKind::kClampedSwiGlu),
};

std::string known_names(bool gated) {
  std::string names;
  for (const auto& entry : kActivations) {
    if (gated ? entry.has_gated : entry.has_plain) {
      names += (names.empty() ? "" : ", ") + std::string(entry.name);
    }
  }
  return names;
}

}  // namespace

Activation parse_activation(const std::string& name, bool gated) {
  for (const auto& entry : kActivations) {
    if (entry.name == name && (gated ? entry.has_gated : entry.has_plain)) {
      return {.kind = gated ? entry.gated : entry.plain};
    }
  }
  TORCH_CHECK(false, "[activation] expected one of ", known_names(gated), gated ? " (gated" : " (not gated",
              " experts), got '", name, "'");
}

}  // namespace motley
