#include "motley/train/packed_windows.h"

#include <ATen/ops/empty.h>

#include <numeric>

namespace motley {

TrainingBatch pack_windows(const TokenStore& tokens, const std::vector<int64_t>& begins, int64_t length) {
  const auto total = static_cast<int64_t>(begins.size()) * length;
  TrainingBatch batch;
  batch.inputs.ids = at::empty({total}, at::kLong);
  batch.inputs.positions = at::empty({total}, at::kLong);
  batch.targets = at::empty({total}, at::kLong);
  batch.inputs.sequence_offset.push_back(0);
  auto* ids = batch.inputs.ids.mutable_data_ptr<int64_t>();
  auto* positions = batch.inputs.positions.mutable_data_ptr<int64_t>();
  auto* targets = batch.targets.mutable_data_ptr<int64_t>();
  int64_t offset = 0;
  for (const int64_t begin : begins) {
    tokens.copy(begin, length, ids + offset);
    tokens.copy(begin + 1, length, targets + offset);
    std::iota(positions + offset, positions + offset + length, int64_t{0});
    offset += length;
    batch.inputs.sequence_offset.push_back(offset);
  }
  return batch;
}

}  // namespace motley
