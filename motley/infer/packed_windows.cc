#include "motley/infer/packed_windows.h"

#include <ATen/ops/empty.h>

#include <numeric>

namespace motley {

WindowBatch pack_windows(const TokenStore& tokens, const std::vector<TokenWindow>& windows) {
  WindowBatch batch;
  batch.inputs.sequence_offset = {0};
  for (const TokenWindow& window : windows) {
    batch.inputs.sequence_offset.push_back(batch.inputs.sequence_offset.back() + window.length);
  }
  const int64_t total = batch.inputs.sequence_offset.back();
  batch.inputs.ids = at::empty({total}, at::kLong);
  batch.inputs.positions = at::empty({total}, at::kLong);
  batch.targets = at::empty({total}, at::kLong);
  auto* ids = batch.inputs.ids.mutable_data_ptr<int64_t>();
  auto* positions = batch.inputs.positions.mutable_data_ptr<int64_t>();
  auto* targets = batch.targets.mutable_data_ptr<int64_t>();
  for (const auto& [begin, length] : windows) {
    tokens.copy(begin, length, ids);
    tokens.copy(begin + 1, length, targets);
    std::iota(positions, positions + length, int64_t{0});
    ids += length;
    positions += length;
    targets += length;
  }
  return batch;
}

}  // namespace motley
