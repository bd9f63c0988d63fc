// Keys of config.json that the decoder's families share.
#pragma once

#include "motley/base/config_values.h"
#include "motley/nn/attention.h"

namespace motley {

// hidden_size, num_attention_heads and num_key_value_heads; head_dim is the family's. Throws UserError naming
// the key.
AttentionOptions read_attention_heads(ConfigValues& values);

}  // namespace motley
