// config.json of published MoE++ models.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "motley/models/decoder/decoder_options.h"

namespace motley {

// num_experts counts all slots, the last four being constant, constant, copy and zero: the released code
// has those numbers and two choices a token as constants, not in the file.
// Keys that say nothing about the computation are passed over. Throws UserError for a key that is missing
// or out of range, and for one that asks for what is not supported.
DecoderOptions parse_moe_plus_plus_config(const nlohmann::json& config, const std::string& source);

}  // namespace motley
