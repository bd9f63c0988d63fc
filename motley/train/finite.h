// A run whose numbers stop being finite: where it began.
#pragma once

#include <ATen/core/Tensor.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "motley/models/causal_lm.h"
#include "motley/train/parameters.h"

namespace motley {

// The run cannot go on. Neither a mistake in the command nor a bug: exit code 1.
class DivergedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The first parameter with a value that is not finite, "" if none.
std::string first_non_finite(const std::vector<TrainedParameter>& parameters);

// Where values of a forward pass stop being finite, in words, looked for in this order: a parameter, the
// output of a block (by running the forward pass again), a gradient (the first that backward reaches).
// gradients may be empty.
std::string find_non_finite(CausalLm& model, const PackedBatch& batch, const ForwardOptions& options,
                            const std::vector<TrainedParameter>& parameters,
                            const std::vector<at::Tensor>& gradients);

}  // namespace motley
