// The part of the configuration that describes MoE layers.
#pragma once

#include <set>
#include <string>

#include "motley/base/config_values.h"
#include "motley/layers/moe_options.h"

namespace motley {

// Reads experts, gate, zero-computation experts, balancing and capacity; hidden_size, activation and dtype
// are the caller's. Throws UserError naming the key.
MoeLayerOptions read_moe_options(ConfigValues& values);

// Every key that it reads.
std::set<std::string, std::less<>> moe_keys();

}  // namespace motley
