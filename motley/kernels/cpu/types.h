// Words shared by all CPU kernels. Kernels know raw pointers only: they allocate nothing and start no
// threads. bf16 is its 16 bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace motley::kernels {

enum class DType { kFloat32, kBFloat16 };

constexpr int64_t size_of(DType type) { return type == DType::kFloat32 ? 4 : 2; }

constexpr int kVectorLanes = 16;
constexpr int kMaxVectors = 4;
constexpr int kMaxLanes = kVectorLanes * kMaxVectors;
constexpr int kTileRows = 6;        // rows of the other operand that a tile works on at once
constexpr int kMaxTileRows = 128;   // the most of any family
constexpr int kTileColumns = 96;    // most columns that are computed together, before they are turned to rows
constexpr int kMostDotRows = 8;     // of x that a matrix-vector product takes
constexpr int kMaxBlockPanels = 4;  // the most of any family

constexpr int vectors_for(int64_t columns) {
  return static_cast<int>((columns + kVectorLanes - 1) / kVectorLanes);
}
constexpr int64_t panel_bytes(DType type, int64_t depth, int vectors) {
  return (depth + depth % 2) * vectors * kVectorLanes * size_of(type);
}

// The packed operand of every product: depth x lanes, one column ("lane") per token or per column of a
// weight, lanes = 16 * vectors. It consists of lines of 64 bytes: 16 lanes of one k (fp32) or of two, which
// stand beside each other in each lane, as dot products and AMX tiles read them (bf16; an odd depth is
// filled up with zeros). Vector products want the vectors of a line of the depth together; tile products
// want the depth of each vector together, since tiles that are spread over memory load at half the speed.
struct Panel {
  DType type;
  void* data;
  int64_t depth;
  int vectors;
  int64_t unit_lines;    // from one k, or pair of k, to the next
  int64_t vector_lines;  // from 16 lanes to the next

  static Panel by_unit(DType type, void* data, int64_t depth, int vectors) {
    return {type, data, depth, vectors, vectors, 1};
  }
  static Panel by_vector(DType type, void* data, int64_t depth, int vectors) {
    return {type, data, depth, vectors, 1, type == DType::kFloat32 ? depth : (depth + 1) / 2};
  }
  int lanes() const { return vectors * kVectorLanes; }
  int64_t bytes() const { return panel_bytes(type, depth, vectors); }
  int64_t units(int64_t k) const { return type == DType::kFloat32 ? k : k / 2; }
  std::byte* line(int64_t unit, int vector) const {
    return static_cast<std::byte*>(data) + (unit * unit_lines + vector * vector_lines) * 64;
  }
  // The rest of the panel from row k on, which must be even.
  Panel from(int64_t k) const {
    return {type, line(units(k), 0), depth - k, vectors, unit_lines, vector_lines};
  }
};

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
