#include "motley/kernels/cpu/expert_block.h"

#include <algorithm>
#include <cstring>

namespace motley::kernels {
namespace {

constexpr int64_t kTileFloats = int64_t{kTileColumns} * kMaxLanes;
constexpr int64_t kFewFloats = int64_t{kTileColumns} * kFewRows;
constexpr int64_t kColumnsAhead = 2 * kTileRows;  // the weights of two tiles are on their way

// Sums of a panel's rows at [column * lanes + row], of the few others at [row * kTileColumns + column].
struct Sums {
  float* tile;
  float* few;
};
Sums take_sums(Arena& arena) {
  float* tile = arena.take_floats(kTileFloats);
  return {tile, arena.take_floats(kFewFloats)};
}

int few_of(const CpuKernels& kernels, DType type, int num_rows) {
  if (spare_rows(kernels, type) == 0) return num_rows <= kFewRowsBesideTiles ? num_rows : 0;
  const int rest = num_rows % kVectorLanes;
  return rest <= kFewRows ? rest : 0;
}

float value_at(DType type, const void* data, int64_t i) {
  if (type == DType::kFloat32) return static_cast<const float*>(data)[i];
  return __builtin_bit_cast(float, static_cast<uint32_t>(static_cast<const uint16_t*>(data)[i]) << 16);
}

// Some columns of a weight, with their bias.
struct Columns {
  const LinearWeight& weight;
  int64_t first;
  int count;
  float bias[kTileColumns] = {};

  Columns(const LinearWeight& of, int64_t first_column, int num_columns)
      : weight(of), first(first_column), count(num_columns) {
    for (int i = 0; weight.bias && i < count; ++i) bias[i] = value_at(weight.type, weight.bias, first + i);
  }
  const void* data() const { return offset(weight.data, weight.type, first * weight.depth); }
  const void* end() const { return offset(weight.data, weight.type, (first + count) * weight.depth); }
};

void panel_product(const CpuKernels& kernels, const Panel& panel, const Columns& columns, float* tile,
                   void* scratch, Upcoming* upcoming) {
  const LinearWeight& weight = columns.weight;
  const int lanes = panel.lanes();
  const void* rows[kTileColumns];
  for (int i = 0; i < columns.count; ++i) {
    rows[i] = offset(columns.data(), weight.type, i * weight.depth);
    if (weight.bias) std::fill(tile + i * lanes, tile + (i + 1) * lanes, columns.bias[i]);
  }
  multiply_rows(kernels, panel, weight.type, rows, columns.count, tile, weight.bias != nullptr, scratch,
                upcoming);
}

void few_product(const CpuKernels& kernels, const BlockInput& x, const Columns& columns, const void* next,
                 float* few) {
  const LinearWeight& weight = columns.weight;
  kernels.dot_rows(weight.type, x.few, x.few_rows,
                   {columns.data(), weight.depth, columns.count, weight.depth, few, kTileColumns, next});
  for (int row = 0; weight.bias && row < x.few_rows; ++row) {
    for (int i = 0; i < columns.count; ++i) few[row * kTileColumns + i] += columns.bias[i];
  }
}

int columns_together(const CpuKernels& kernels, DType type, const BlockInput& x) {
  return x.num_panels > 0 ? kernels.block_columns(type) : kTileColumns;
}

// The weights of the columns, a little ahead of the products.
Upcoming stream(const CpuKernels& kernels, const LinearWeight& weight, int64_t first, int64_t last,
                int num_panels) {
  const int64_t ahead = std::max<int64_t>(
      kColumnsAhead, kernels.block_panels(weight.type) > 1 ? kernels.block_columns(weight.type) : 0);
  const int64_t from = std::min(first + ahead, last);
  return {offset(weight.data, weight.type, from * weight.depth),
          (last - from) * weight.depth * size_of(weight.type), std::max(1, num_panels)};
}

void store_few(const CpuKernels& kernels, const BlockInput& x, const float* few, int count, DType type,
               void* const* out, int64_t first) {
  for (int row = 0; row < x.few_rows; ++row) {
    void* to = offset(out[x.panel_rows + row], type, first);
    kernels.store(few + row * kTileColumns, count, type, to, false);
  }
}

// Rows whose distance is a multiple of a page would compete for the same few places of the first-level cache,
// also with the weight that streams past them.
int64_t few_row_bytes(DType type, int64_t depth) { return Arena::rounded(depth * size_of(type)) + 512; }

BlockInput split(const CpuKernels& kernels, DType type, int64_t depth, int num_rows) {
  BlockInput input;
  input.few_rows = few_of(kernels, type, num_rows);
  input.panel_rows = num_rows - input.few_rows;
  for (int first = 0; first < input.panel_rows; first += kMaxLanes) {
    input.panels[input.num_panels] =
        kernels.panel(kernels.panel_type(type), nullptr, depth, vectors_for(input.rows_of(input.num_panels)));
    ++input.num_panels;
  }
  return input;
}

}  // namespace

int64_t block_input_bytes(const CpuKernels& kernels, DType type, int64_t depth, int num_rows) {
  const BlockInput input = split(kernels, type, depth, num_rows);
  int64_t bytes = input.few_rows * few_row_bytes(type, depth);
  for (int p = 0; p < input.num_panels; ++p) bytes += Arena::rounded(input.panels[p].bytes());
  return bytes;
}

BlockInput activated_input(const CpuKernels& kernels, DType type, int64_t width, int num_rows, void* memory) {
  BlockInput input = split(kernels, type, width, num_rows);
  Arena arena(memory);
  for (int p = 0; p < input.num_panels; ++p) input.panels[p].data = arena.take(input.panels[p].bytes());
  for (int row = 0; row < input.few_rows; ++row) input.few[row] = arena.take(few_row_bytes(type, width));
  return input;
}

BlockInput pack_block(const CpuKernels& kernels, const RowBlock& block, void* memory) {
  BlockInput input = split(kernels, block.x.type, block.depth, block.num_rows);
  Arena arena(memory);
  const void* rows[kMaxBlockRows];
  for (int i = 0; i < block.num_rows; ++i) rows[i] = block.x.row(block.first + i);
  for (int row = 0; row < input.few_rows; ++row) {
    void* to = arena.take(few_row_bytes(block.x.type, block.depth));
    std::memcpy(to, rows[input.panel_rows + row], block.depth * size_of(block.x.type));
    input.few[row] = to;
  }
  for (int p = 0; p < input.num_panels; ++p) {
    Panel& panel = input.panels[p];
    panel.data = arena.take(panel.bytes());
    kernels.pack_columns(block.x.type, rows + p * kMaxLanes, input.rows_of(p), 0, block.depth, panel);
  }
  return input;
}

int64_t block_scratch_bytes() { return kMultiplyScratch + 2 * (kTileFloats + kFewFloats) * 4; }

void linear_columns(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& weight, int64_t first,
                    int64_t last, DType type, void* const* out, void* scratch) {
  Arena arena(scratch);
  void* converted = arena.take(kMultiplyScratch);
  const Sums sums = take_sums(arena);
  Upcoming upcoming = stream(kernels, weight, first, last, x.num_panels);
  const int step = columns_together(kernels, weight.type, x);
  for (int64_t column = first; column < last; column += step) {
    const int count = static_cast<int>(std::min<int64_t>(step, last - column));
    const Columns columns(weight, column, count);
    for (int p = 0; p < x.num_panels; ++p) {
      panel_product(kernels, x.panels[p], columns, sums.tile, converted, &upcoming);
      kernels.store_transposed(sums.tile, count, x.panels[p].vectors, x.rows_of(p), type, out + p * kMaxLanes,
                               column);
    }
    if (x.few_rows == 0) continue;
    few_product(kernels, x, columns, column + count < last ? columns.end() : nullptr, sums.few);
    store_few(kernels, x, sums.few, count, type, out, column);
  }
}

void expert_up(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& gate_up,
               const ActivationSpec& activation, int64_t expert_width, int64_t first, int64_t last,
               void* const* hidden, const BlockInput& activated, const void* next, void* scratch) {
  Arena arena(scratch);
  void* converted = arena.take(kMultiplyScratch);
  const Sums gate = take_sums(arena);
  const Sums up = take_sums(arena);
  const DType type = gate_up.type;
  const bool gated = activation.gated();
  Upcoming gate_weights = stream(kernels, gate_up, first, last, x.num_panels);
  const int step = columns_together(kernels, type, x);
  Upcoming up_weights =
      gated ? stream(kernels, gate_up, expert_width + first, expert_width + last, x.num_panels) : Upcoming();
  for (int64_t column = first; column < last; column += step) {
    const int count = static_cast<int>(std::min<int64_t>(step, last - column));
    const Columns gate_columns(gate_up, column, count);
    const Columns up_columns(gate_up, gated ? expert_width + column : 0, gated ? count : 0);
    for (int p = 0; p < x.num_panels; ++p) {
      const Panel& panel = x.panels[p];
      auto keep = [&](const float* tile, int64_t at) {
        if (!hidden) return;
        kernels.store_transposed(tile, count, panel.vectors, x.rows_of(p), type, hidden + p * kMaxLanes, at);
      };
      panel_product(kernels, panel, gate_columns, gate.tile, converted, &gate_weights);
      keep(gate.tile, column);
      if (gated) {
        panel_product(kernels, panel, up_columns, up.tile, converted, &up_weights);
        keep(up.tile, expert_width + column);
      }
      kernels.activate(activation, gate.tile, up.tile, int64_t{count} * panel.lanes(), gate.tile);
      kernels.pack_tile(gate.tile, count, activated.panels[p].from(column));
    }
    if (x.few_rows == 0) continue;
    const void* next_gate = column + count < last ? gate_columns.end() : next;
    few_product(kernels, x, gate_columns, gated ? up_columns.data() : next_gate, gate.few);
    if (gated) few_product(kernels, x, up_columns, next_gate, up.few);
    if (hidden) store_few(kernels, x, gate.few, count, type, hidden, column);
    if (hidden && gated) store_few(kernels, x, up.few, count, type, hidden, expert_width + column);
    for (int row = 0; row < x.few_rows; ++row) {
      float* a = gate.few + row * kTileColumns;
      kernels.activate(activation, a, up.few + row * kTileColumns, count, a);
      kernels.store(a, count, type, const_cast<void*>(offset(activated.few[row], type, column)), false);
    }
  }
}

}  // namespace motley::kernels
