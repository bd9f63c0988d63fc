// Which part of the training tokens each sequence of a run reads: a pure function of (seed, number of the
// sequence), so that a run goes on after a restart without any state.
#pragma once

#include <cstdint>

namespace motley {

// Cuts the tokens into windows, all of which are read once an epoch in a fresh order; each epoch cuts at
// another place, so that no position is always the first of a sequence.
class DataOrder {
 public:
  // A window is sequence_length + 1 tokens: inputs and, shifted by one, targets. Throws UserError if
  // num_tokens holds none.
  DataOrder(uint64_t seed, int64_t num_tokens, int64_t sequence_length);

  // First token of sequence `index`, counted over the whole run from 0.
  int64_t begin(int64_t index) const;
  int64_t windows_per_epoch() const { return num_windows_; }

 private:
  uint64_t seed_;
  int64_t num_tokens_, sequence_length_, num_windows_;
};

// A well-mixed function of its arguments, for seeds of single steps.
uint64_t mix_seed(uint64_t seed, uint64_t stream, uint64_t index);

}  // namespace motley
