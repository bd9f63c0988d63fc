// Words shared by all CPU kernels. Kernels know raw pointers only: they allocate nothing and start no
// threads. bf16 is its 16 bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace motley::kernels {

enum class DType { kFloat32, kBFloat16 };

constexpr int64_t size_of(DType type) { return type == DType::kFloat32 ? 4 : 2; }

// A panel is the packed operand of every product: depth x lanes, one column ("lane") per token or per
// column of a weight, lanes = 16 * vectors. Element (k, lane) of an fp32 panel is at k * lanes + lane; a
// bf16 panel keeps pairs of k together, (k / 2 * lanes + lane) * 2 + k % 2, as dot-product instructions
// and AMX tiles read them, and its depth is rounded up to even with a zero. A chunk of a panel that
// starts at an even k is a panel itself, at element k * lanes.
constexpr int kVectorLanes = 16;
constexpr int kMaxVectors = 4;
constexpr int kMaxLanes = kVectorLanes * kMaxVectors;
constexpr int kTileRows = 6;        // rows of the other operand that a tile works on at once
constexpr int kMaxTileRows = 128;   // the most of any family
constexpr int kMaxBlockPanels = 4;  // the most of any family

constexpr int vectors_for(int64_t columns) {
  return static_cast<int>((columns + kVectorLanes - 1) / kVectorLanes);
}
constexpr int64_t panel_bytes(DType type, int64_t depth, int vectors) {
  return (depth + depth % 2) * vectors * kVectorLanes * size_of(type);
}

inline const void* offset(const void* data, DType type, int64_t elements) {
  return static_cast<const std::byte*>(data) + elements * size_of(type);
}
inline void* offset(void* data, DType type, int64_t elements) {
  return static_cast<std::byte*>(data) + elements * size_of(type);
}

// Numbered as motley::ActivationKind.
enum class Activation : int64_t { kSwiGlu, kGeGlu, kClampedSwiGlu, kGelu, kRelu, kSilu };

struct ActivationSpec {
  Activation kind = Activation::kSwiGlu;
  float alpha = 0;  // kClampedSwiGlu only
  float limit = 0;  // kClampedSwiGlu only
  bool gated() const { return kind <= Activation::kClampedSwiGlu; }
};

}  // namespace motley::kernels
