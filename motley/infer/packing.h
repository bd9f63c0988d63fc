// Sequences of token ids to a packed batch, with the checks that every caller needs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "motley/models/causal_lm.h"

namespace motley {

// Positions start at first_positions[b] (0 when empty). The ids are taken as they are.
PackedBatch pack(const std::vector<std::vector<int64_t>>& sequences,
                 const std::vector<int64_t>& first_positions = {});

// Throws UserError naming the prompt ("prompt 3", or by another word), the place and the id: nothing in it,
// an id outside the vocabulary, more tokens than the model has positions.
void check_prompts(const CausalLm& model, const std::vector<std::vector<int64_t>>& prompts,
                   const std::string& name = "prompt");

}  // namespace motley
