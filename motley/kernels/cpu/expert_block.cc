#include "motley/kernels/cpu/expert_block.h"

#include <algorithm>

namespace motley::kernels {
namespace {

constexpr int64_t kTileFloats = int64_t{kTileColumns} * kMaxLanes;
constexpr int64_t kFewFloats = int64_t{kTileColumns} * kFewRows;

// What a product leaves: sums of the panel's rows at tile[column * lanes + row], of the few others at
// few[row * kTileColumns + column].
struct Sums {
  float* tile;
  float* few;
};
Sums take_sums(Arena& arena) {
  float* tile = arena.take_floats(kTileFloats);
  return {tile, arena.take_floats(kFewFloats)};
}

int few_of(int num_rows) {
  const int rest = num_rows % kVectorLanes;
  return rest <= kFewRows ? rest : 0;
}

float value_at(DType type, const void* data, int64_t i) {
  if (type == DType::kFloat32) return static_cast<const float*>(data)[i];
  return __builtin_bit_cast(float, static_cast<uint32_t>(static_cast<const uint16_t*>(data)[i]) << 16);
}

// Columns first .. first + count of one product.
void product(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& weight, int64_t first,
             int count, const Sums& sums, void* scratch) {
  const void* w = offset(weight.data, weight.type, first * weight.depth);
  float bias[kTileColumns] = {};
  for (int i = 0; weight.bias && i < count; ++i) bias[i] = value_at(weight.type, weight.bias, first + i);
  if (x.panel_rows > 0) {
    const int lanes = x.panel.lanes();
    const void* rows[kTileColumns];
    for (int i = 0; i < count; ++i) {
      rows[i] = offset(w, weight.type, i * weight.depth);
      if (weight.bias) std::fill(sums.tile + i * lanes, sums.tile + (i + 1) * lanes, bias[i]);
    }
    multiply_rows(kernels, x.panel, weight.type, rows, count, sums.tile, weight.bias != nullptr, scratch);
  }
  if (x.few_rows == 0) return;
  kernels.dot_rows(weight.type, x.few, x.few_rows, w, weight.depth, count, weight.depth, sums.few,
                   kTileColumns);
  for (int row = 0; weight.bias && row < x.few_rows; ++row) {
    for (int i = 0; i < count; ++i) sums.few[row * kTileColumns + i] += bias[i];
  }
}

// Writes sums into columns of whole rows.
void store_rows(const CpuKernels& kernels, const BlockInput& x, const Sums& sums, int count, DType type,
                void* const* out, int64_t first) {
  if (x.panel_rows > 0) {
    kernels.store_transposed(sums.tile, count, x.panel.vectors, x.panel_rows, type, out, first);
  }
  for (int row = 0; row < x.few_rows; ++row) {
    void* to = offset(out[x.panel_rows + row], type, first);
    kernels.store(sums.few + row * kTileColumns, count, type, to, false);
  }
}

BlockInput split(const CpuKernels& kernels, DType type, int64_t depth, int num_rows, void* memory) {
  const int few = few_of(num_rows);
  const int panel_rows = num_rows - few;
  return {{kernels.panel_type(type), memory, depth, vectors_for(panel_rows)}, panel_rows, few, {}};
}

}  // namespace

int64_t block_input_bytes(const CpuKernels& kernels, DType type, int64_t depth, int num_rows) {
  const BlockInput input = split(kernels, type, depth, num_rows, nullptr);
  return Arena::rounded(input.panel.bytes()) + Arena::rounded(input.few_rows * depth * size_of(type));
}

BlockInput activated_input(const CpuKernels& kernels, DType type, int64_t width, int num_rows, void* memory) {
  Arena arena(memory);
  BlockInput input = split(kernels, type, width, num_rows, nullptr);
  input.panel.data = arena.take(input.panel.bytes());
  void* rows = arena.take(input.few_rows * width * size_of(type));
  for (int i = 0; i < input.few_rows; ++i) input.few[i] = offset(rows, type, i * width);
  return input;
}

BlockInput pack_block(const CpuKernels& kernels, const RowBlock& block, void* memory) {
  BlockInput input = split(kernels, block.x.type, block.depth, block.num_rows, memory);
  const void* rows[kMaxBlockRows];
  for (int i = 0; i < block.num_rows; ++i) rows[i] = block.x.row(block.first + i);
  std::copy(rows + input.panel_rows, rows + block.num_rows, input.few);
  if (input.panel_rows > 0) {
    kernels.pack_columns(block.x.type, rows, input.panel_rows, 0, block.depth, input.panel.type,
                         input.panel.vectors, memory);
  }
  return input;
}

int64_t block_scratch_bytes() { return kMultiplyScratch + 2 * (kTileFloats + kFewFloats) * 4; }

void linear_columns(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& weight, int64_t first,
                    int64_t last, DType type, void* const* out, void* scratch) {
  Arena arena(scratch);
  void* converted = arena.take(kMultiplyScratch);
  const Sums sums = take_sums(arena);
  for (int64_t column = first; column < last; column += kTileColumns) {
    const int count = static_cast<int>(std::min<int64_t>(kTileColumns, last - column));
    product(kernels, x, weight, column, count, sums, converted);
    store_rows(kernels, x, sums, count, type, out, column);
  }
}

void expert_up(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& gate_up,
               const ActivationSpec& activation, int64_t expert_width, int64_t first, int64_t last,
               void* const* hidden, const BlockInput& activated, void* scratch) {
  Arena arena(scratch);
  void* converted = arena.take(kMultiplyScratch);
  const Sums gate = take_sums(arena);
  const Sums up = take_sums(arena);
  const DType type = gate_up.type;
  for (int64_t column = first; column < last; column += kTileColumns) {
    const int count = static_cast<int>(std::min<int64_t>(kTileColumns, last - column));
    product(kernels, x, gate_up, column, count, gate, converted);
    if (hidden) store_rows(kernels, x, gate, count, type, hidden, column);
    if (activation.gated()) {
      product(kernels, x, gate_up, expert_width + column, count, up, converted);
      if (hidden) store_rows(kernels, x, up, count, type, hidden, expert_width + column);
    }
    if (x.panel_rows > 0) {
      kernels.activate(activation, gate.tile, up.tile, int64_t{count} * x.panel.lanes(), gate.tile);
      kernels.pack_tile(gate.tile, count, x.panel.vectors, activated.panel.type, activated.panel.at(column));
    }
    for (int row = 0; row < x.few_rows; ++row) {
      float* a = gate.few + row * kTileColumns;
      kernels.activate(activation, a, up.few + row * kTileColumns, count, a);
      kernels.store(a, count, type, const_cast<void*>(offset(activated.few[row], type, column)), false);
    }
  }
}

}  // namespace motley::kernels
