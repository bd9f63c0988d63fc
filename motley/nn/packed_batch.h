// Packed tokens: a batch of prompts, training sequences and mixed prefill and decode are the same call.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace motley {

// T tokens of B sequences, one after the other.
struct PackedBatch {
  at::Tensor ids;                        // [T] int64
  at::Tensor positions;                  // [T] int64: position of each token in its sequence, from 0
  std::vector<int64_t> sequence_offset;  // [B + 1]: sequence b has tokens sequence_offset[b] .. [b + 1]

  int64_t num_tokens() const { return ids.size(0); }
  int64_t num_sequences() const { return static_cast<int64_t>(sequence_offset.size()) - 1; }
};

}  // namespace motley
