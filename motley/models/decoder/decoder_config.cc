#include "motley/models/decoder/decoder_config.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "motley/base/concat.h"

namespace motley {
namespace {

AttentionOptions read_attention_heads(ConfigValues& values) {
  AttentionOptions attention;
  attention.hidden_size = values.required<int64_t>("hidden_size", between(1, kMaxWidth));
  attention.num_heads = values.required<int64_t>("num_attention_heads", between(1, kMaxHeads));
  attention.num_kv_heads =
      values.optional<int64_t>("num_key_value_heads", attention.num_heads, between(1, kMaxHeads));
  if (attention.num_heads % attention.num_kv_heads != 0) {
    values.fail("num_key_value_heads", concat("a divisor of num_attention_heads (", attention.num_heads, ")"),
                concat(attention.num_kv_heads));
  }
  return attention;
}

// One id or a list of them.
std::vector<int64_t> read_end_tokens(ConfigValues& values, int64_t vocab_size) {
  const Range ids = between(0, static_cast<double>(vocab_size - 1));
  values.know("eos_token_id");
  if (!values.has("eos_token_id")) return {};
  if (values.object().at("eos_token_id").is_array()) {
    return values.required<std::vector<int64_t>>("eos_token_id", ids);
  }
  return {values.required<int64_t>("eos_token_id", ids)};
}

}  // namespace

DecoderOptions read_decoder(ConfigValues& values) {
  DecoderOptions options;
  options.vocab_size = values.required<int64_t>("vocab_size", between(1, kMaxVocabulary));
  options.max_positions = values.required<int64_t>("max_position_embeddings", between(1, kMaxPositions));
  options.attention = read_attention_heads(values);
  options.rope_theta = values.optional<double>("rope_theta", 10000.0, at_least(1));
  options.rms_norm_eps = values.optional<double>("rms_norm_eps", 1e-6, at_least(0));
  options.tie_word_embeddings = values.optional<bool>("tie_word_embeddings", false);
  options.end_tokens = read_end_tokens(values, options.vocab_size);
  // These are for who loads or makes the model.
  read_dtype(values);
  values.optional<double>("initializer_range", 0.02, at_least(0));
  return options;
}

std::optional<at::ScalarType> read_dtype(ConfigValues& values) {
  values.know("torch_dtype");
  values.know("dtype");
  const char* key = values.has("torch_dtype") ? "torch_dtype" : "dtype";
  const std::string name = values.choice(key, {"float32", "bfloat16", "float16"}, "");
  if (name.empty()) return std::nullopt;
  return name == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

}  // namespace motley
