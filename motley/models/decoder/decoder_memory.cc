#include "motley/models/decoder/decoder_memory.h"

#include <c10/core/ScalarType.h>

#include <algorithm>

#include "motley/base/config_values.h"
#include "motley/base/memory.h"

namespace motley {

double decoder_bytes(const DecoderOptions& options, double bytes_per_parameter) {
  const auto real = [](int64_t size) { return static_cast<double>(size); };
  const AttentionOptions& attention = options.attention;
  const MoeLayerOptions& moe = options.moe;
  const double hidden = real(options.hidden_size()), head = real(attention.head_dim);
  const double projections = 2 * hidden * head * (real(attention.num_heads) + real(attention.num_kv_heads));
  const double dense = 3 * hidden * real(options.dense_width);
  const double expert =
      hidden * (real(moe.activation.hidden_rows(moe.expert_width)) + real(moe.expert_width));
  const double slots = real(moe.gate.num_slots());
  const double sparse = real(moe.gate.num_experts) * expert + 3 * hidden * real(moe.shared_expert_width) +
                        slots * (hidden + (moe.gate.gating_residual ? slots : 0));
  const double num_sparse = real(std::count(options.sparse.begin(), options.sparse.end(), true));
  const double vocabulary = (options.tie_word_embeddings ? 1 : 2) * real(options.vocab_size) * hidden;
  const double parameters = vocabulary + real(options.num_layers()) * projections + num_sparse * sparse +
                            (real(options.num_layers()) - num_sparse) * dense;
  return parameters * bytes_per_parameter + real(options.max_positions) * head * sizeof(float);
}

DecoderOptions for_build(DecoderOptions options, const BuildOptions& build, const std::string& source) {
  options.dtype = build.dtype;
  options.moe.fp32_expert_gradients = build.fp32_expert_gradients;
  const auto of_weights = static_cast<double>(c10::elementSize(options.dtype));
  require_memory(key_place(source, ""),
                 build.bytes_per_parameter > of_weights ? "weights, gradients and moments" : "weights",
                 decoder_bytes(options, std::max(build.bytes_per_parameter, of_weights)),
                 "lower vocab_size, hidden_size, num_hidden_layers, num_experts or a width");
  return options;
}

ModelSize size_of(const DecoderOptions& options) {
  return {options.vocab_size, options.hidden_size(), options.num_layers()};
}

}  // namespace motley
