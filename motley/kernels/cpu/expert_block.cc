#include "motley/kernels/cpu/expert_block.h"

#include <algorithm>

namespace motley::kernels {
namespace {

constexpr int64_t kTileFloats = int64_t{kTileColumns} * kMaxLanes;

float value_at(DType type, const void* data, int64_t i) {
  if (type == DType::kFloat32) return static_cast<const float*>(data)[i];
  return __builtin_bit_cast(float, static_cast<uint32_t>(static_cast<const uint16_t*>(data)[i]) << 16);
}

// Columns first .. first + count of one product: c[column * lanes + token], or c[token * kTileColumns +
// column] for few rows.
void product(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& weight, int64_t first,
             int count, float* c, void* scratch) {
  const void* w = offset(weight.data, weight.type, first * weight.depth);
  if (few_rows(x.num_rows)) {
    kernels.dot_rows(weight.type, x.rows, x.num_rows, w, weight.depth, count, weight.depth, c, kTileColumns);
    if (weight.bias == nullptr) return;
    for (int token = 0; token < x.num_rows; ++token) {
      for (int i = 0; i < count; ++i) {
        c[token * kTileColumns + i] += value_at(weight.type, weight.bias, first + i);
      }
    }
    return;
  }
  const int lanes = x.panel.lanes();
  const void* rows[kTileColumns];
  for (int i = 0; i < count; ++i) {
    rows[i] = offset(w, weight.type, i * weight.depth);
    if (weight.bias == nullptr) continue;
    std::fill(c + i * lanes, c + (i + 1) * lanes, value_at(weight.type, weight.bias, first + i));
  }
  multiply_rows(kernels, x.panel, weight.type, rows, count, c, weight.bias != nullptr, scratch);
}

// Writes a product's tile into columns of whole rows.
void store_rows(const CpuKernels& kernels, const BlockInput& x, const float* c, int count, DType type,
                void* const* out, int64_t first) {
  if (!few_rows(x.num_rows)) {
    kernels.store_transposed(c, count, x.panel.vectors, x.num_rows, type, out, first);
    return;
  }
  for (int token = 0; token < x.num_rows; ++token) {
    kernels.store(c + token * kTileColumns, count, type, offset(out[token], type, first), false);
  }
}

}  // namespace

int64_t block_input_bytes(const CpuKernels& kernels, DType type, int64_t depth, int num_rows) {
  if (few_rows(num_rows)) return Arena::rounded(num_rows * depth * size_of(type));
  return Arena::rounded(panel_bytes(kernels.panel_type(type), depth, vectors_for(num_rows)));
}

BlockInput activated_input(const CpuKernels& kernels, DType type, int64_t width, int num_rows, void* memory) {
  BlockInput input{{kernels.panel_type(type), memory, width, vectors_for(num_rows)}, num_rows, {}};
  if (few_rows(num_rows)) {
    for (int i = 0; i < num_rows; ++i) input.rows[i] = offset(memory, type, i * width);
  }
  return input;
}

BlockInput pack_block(const CpuKernels& kernels, const RowBlock& block, void* memory) {
  const void* rows[kMaxLanes];
  for (int i = 0; i < block.num_rows; ++i) rows[i] = block.x.row(block.first + i);
  BlockInput input{
      {kernels.panel_type(block.x.type), memory, block.depth, block.vectors()}, block.num_rows, {}};
  if (few_rows(block.num_rows)) {
    std::copy(rows, rows + block.num_rows, input.rows);
  } else {
    kernels.pack_columns(block.x.type, rows, block.num_rows, 0, block.depth, input.panel.type,
                         input.panel.vectors, memory);
  }
  return input;
}

int64_t block_scratch_bytes() { return kMultiplyScratch + 2 * kTileFloats * 4; }

void linear_columns(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& weight, int64_t first,
                    int64_t last, DType type, void* const* out, void* scratch) {
  Arena arena(scratch);
  void* converted = arena.take(kMultiplyScratch);
  float* c = arena.take_floats(kTileFloats);
  for (int64_t column = first; column < last; column += kTileColumns) {
    const int count = static_cast<int>(std::min<int64_t>(kTileColumns, last - column));
    product(kernels, x, weight, column, count, c, converted);
    store_rows(kernels, x, c, count, type, out, column);
  }
}

void expert_up(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& gate_up,
               const ActivationSpec& activation, int64_t expert_width, int64_t first, int64_t last,
               void* const* hidden, const BlockInput& activated, void* scratch) {
  Arena arena(scratch);
  void* converted = arena.take(kMultiplyScratch);
  float* gate = arena.take_floats(kTileFloats);
  float* up = arena.take_floats(kTileFloats);
  const bool few = few_rows(x.num_rows);
  for (int64_t column = first; column < last; column += kTileColumns) {
    const int count = static_cast<int>(std::min<int64_t>(kTileColumns, last - column));
    product(kernels, x, gate_up, column, count, gate, converted);
    if (hidden) store_rows(kernels, x, gate, count, gate_up.type, hidden, column);
    if (activation.gated()) {
      product(kernels, x, gate_up, expert_width + column, count, up, converted);
      if (hidden) store_rows(kernels, x, up, count, gate_up.type, hidden, expert_width + column);
    }
    if (!few) {
      kernels.activate(activation, gate, up, int64_t{count} * x.panel.lanes(), gate);
      kernels.pack_tile(gate, count, x.panel.vectors, activated.panel.type, activated.panel.at(column));
      continue;
    }
    for (int token = 0; token < x.num_rows; ++token) {
      float* a = gate + token * kTileColumns;
      kernels.activate(activation, a, up + token * kTileColumns, count, a);
      void* to = const_cast<void*>(offset(activated.rows[token], gate_up.type, column));
      kernels.store(a, count, gate_up.type, to, false);
    }
  }
}

}  // namespace motley::kernels
