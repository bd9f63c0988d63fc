// Keys of config.json that the decoder's families share.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>

#include "motley/base/config_values.h"
#include "motley/models/decoder/decoder_options.h"

namespace motley {

// Largest sizes. No model comes near them, and no tensor made of them has more than 2^63 bytes: the largest,
// of all experts' first products, has kMaxExperts * 2 kMaxWidth * kMaxWidth elements.
constexpr int64_t kMaxLayers = 10'000, kMaxVocabulary = 1 << 24, kMaxPositions = 1 << 24;
constexpr int64_t kMaxWidth = 1 << 20;  // of the residual stream, of experts and dense layers
constexpr int64_t kMaxHeads = 1 << 16, kMaxHeadDim = 1 << 16, kMaxExperts = 1 << 16;

// vocab_size, max_position_embeddings, hidden_size, num_attention_heads, num_key_value_heads, rope_theta,
// rms_norm_eps, tie_word_embeddings and eos_token_id, and a look at torch_dtype and initializer_range; layers
// and head_dim are the family's. Throws UserError naming the key.
DecoderOptions read_decoder(ConfigValues& values);

// torch_dtype, or dtype as newer files call it: what the tensors were saved in. fp16 is computed in fp32,
// which loses nothing.
std::optional<at::ScalarType> read_dtype(ConfigValues& values);

}  // namespace motley
