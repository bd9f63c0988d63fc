// The forward pass of one expert over a block of rows: the pieces from which the operators make tasks.
// Products keep tokens in the lanes, so that weights are read as they lie, once per block, and the
// activated tile is the next product's panel as it comes out.
#pragma once

#include "motley/kernels/cpu/multiply.h"

namespace motley::kernels {

// So few rows are multiplied as dot products, which stream an expert's weights as they lie: all rows of a
// small block, and those of a larger one that would leave half of a panel's last vector empty.
constexpr int kFewRows = kMostDotRows;
constexpr int kMaxBlockRows = kMaxBlockPanels * kMaxLanes + kFewRows;
// Tiles take half-empty vectors in their stride: there only blocks that wait for memory are dot products.
constexpr int kFewRowsBesideTiles = 4;
// Most rows of a block in panels, and how many more it may have.
inline int block_rows(const CpuKernels& kernels, DType type) {
  return kernels.block_panels(type) * kMaxLanes;
}
inline int spare_rows(const CpuKernels& kernels, DType type) {
  return kernels.wants_spaced_rows(kernels.panel_type(type)) ? 0 : kFewRows;
}

// Rows of one expert: at most block_rows() + spare_rows().
struct RowBlock {
  RowSource x;
  int64_t first;
  int num_rows;
  int64_t depth;  // width of x
};

// One weight [columns, depth] of one expert, with its bias.
struct LinearWeight {
  const void* data;
  DType type;
  int64_t depth;
  const void* bias = nullptr;  // of the same type
};

// The first operand of a block, packed once and used for all its columns: panels of the first rows, and the
// few that remain as they are. Either may be none.
struct BlockInput {
  int num_panels = 0;
  Panel panels[kMaxBlockPanels];
  int panel_rows = 0;  // of all panels: kMaxLanes each, the last one fewer
  int few_rows = 0;
  const void* few[kFewRows];

  int rows_of(int panel) const {
    const int left = panel_rows - panel * kMaxLanes;
    return left < kMaxLanes ? left : kMaxLanes;
  }
};
int64_t block_input_bytes(const CpuKernels& kernels, DType type, int64_t depth, int num_rows);
BlockInput pack_block(const CpuKernels& kernels, const RowBlock& block, void* memory);
// The space for the activated rows of `width` of a block, to be filled by expert_up.
BlockInput activated_input(const CpuKernels& kernels, DType type, int64_t width, int num_rows, void* memory);

int64_t block_scratch_bytes();

// out[row][first .. last) = x W^T + bias, rounded to `type`. out points at whole rows.
void linear_columns(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& weight, int64_t first,
                    int64_t last, DType type, void* const* out, void* scratch);

// Columns first .. last of the activated rows; `first` is even. gate_up [2F or F, D]. hidden, unless
// null, points at whole rows of H; next, unless null, at what is read after gate_up.
void expert_up(const CpuKernels& kernels, const BlockInput& x, const LinearWeight& gate_up,
               const ActivationSpec& activation, int64_t expert_width, int64_t first, int64_t last,
               void* const* hidden, const BlockInput& activated, const void* next, void* scratch);

}  // namespace motley::kernels
