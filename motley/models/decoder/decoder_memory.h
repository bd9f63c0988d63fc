// How much memory a decoder takes, known before it is made.
#pragma once

#include <string>

#include "motley/models/decoder/decoder_options.h"
#include "motley/models/model_family.h"

namespace motley {

// Bytes of the parameters and of the rotary table, but for small ones (norms, biases); a double, which no
// size makes overflow.
double decoder_bytes(const DecoderOptions& options, double bytes_per_parameter);

// The options with what is asked of the build. Throws UserError where the model, with what training keeps
// beside it, is more than the machine's memory; `source` names the configuration.
DecoderOptions for_build(DecoderOptions options, const BuildOptions& build, const std::string& source);

ModelSize size_of(const DecoderOptions& options);

}  // namespace motley
