// The sequences of one forward pass, packed, with the token that follows each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "motley/nn/packed_batch.h"
#include "motley/text/token_store.h"

namespace motley {

struct TrainingBatch {
  PackedBatch inputs;  // [B * L]
  at::Tensor targets;  // [B * L] int64
};

// Windows of length + 1 tokens that begin at `begins`.
TrainingBatch pack_windows(const TokenStore& tokens, const std::vector<int64_t>& begins, int64_t length);

}  // namespace motley
