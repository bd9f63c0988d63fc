// Random weights of a fresh model.
#pragma once

#include <cstdint>

#include "motley/models/causal_lm.h"

namespace motley {

// Norms are ones, biases and buffers zeros, all else normal with standard deviation `std`; what writes
// into the residual stream (o_proj, down_proj) is divided by sqrt(2 num_layers), as GPT-2 does, so that
// the stream's variance does not grow with depth. Each tensor draws from a generator of its own, made of
// seed and name, in fp32: values depend neither on the order of tensors nor on threads nor on dtype.
void initialise(CausalLm& model, uint64_t seed, double std, int64_t num_layers);

}  // namespace motley
