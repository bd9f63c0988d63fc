// Stretches of a text, packed into the sequences of one forward pass, with the token that follows each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "motley/nn/packed_batch.h"
#include "motley/text/token_store.h"

namespace motley {

struct TokenWindow {
  int64_t begin, length;  // reads tokens begin .. begin + length - 1 and predicts the one after each
};

struct WindowBatch {
  PackedBatch inputs;  // [sum of lengths]
  at::Tensor targets;  // the same, int64
};

WindowBatch pack_windows(const TokenStore& tokens, const std::vector<TokenWindow>& windows);

}  // namespace motley
