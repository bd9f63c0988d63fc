#include "motley/models/decoder/decoder_config.h"

#include "motley/base/concat.h"

namespace motley {

AttentionOptions read_attention_heads(ConfigValues& values) {
  AttentionOptions attention;
  attention.hidden_size = values.required<int64_t>("hidden_size", at_least(1));
  attention.num_heads = values.required<int64_t>("num_attention_heads", at_least(1));
  attention.num_kv_heads = values.optional<int64_t>("num_key_value_heads", attention.num_heads, at_least(1));
  if (attention.num_heads % attention.num_kv_heads != 0) {
    values.fail("num_key_value_heads", concat("a divisor of num_attention_heads (", attention.num_heads, ")"),
                concat(attention.num_kv_heads));
  }
  return attention;
}

}  // namespace motley
