// config.json of model_type "motley". README.md beside this file lists every key.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "motley/models/decoder/decoder_options.h"

namespace motley {

// Throws UserError naming the key: unknown (with the nearest known one), missing, out of range, without
// effect, or in contradiction to another.
DecoderOptions parse_motley_config(const nlohmann::json& config, const std::string& source);

}  // namespace motley
