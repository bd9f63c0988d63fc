// The unit of work of the grouped products: up to kTileRows consecutive rows of one expert.
#pragma once

namespace motley::cuda {

// Rows that a pair of thread blocks computes together. They take them in blocks of 64, alternately, so
// that a short tile is shared evenly: its cost is a multiple of 128 rows' cost, not of 256.
constexpr int kTileRows = 256;

struct alignas(16) RowTile {
  int expert;
  int row_begin;
  int row_end;
  int place;  // where the expert's weights are
};

// An upper bound of the number of tiles of `max_rows` rows over `num_experts` experts.
constexpr int max_row_tiles(int max_rows, int num_experts) { return max_rows / kTileRows + num_experts; }

}  // namespace motley::cuda
