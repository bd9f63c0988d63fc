#include "motley/models/motley/motley_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/models/decoder/decoder_config.h"
#include "motley/models/motley/motley_moe_config.h"

namespace motley {
namespace {

// Keys of Hugging Face that say nothing about the computation.
constexpr const char* kInformative[] = {"model_type",   "architectures", "transformers_version",
                                        "bos_token_id", "pad_token_id",  "use_cache",
                                        "tokenizer"};

std::vector<bool> read_layers(ConfigValues& values) {
  const int64_t num_layers = values.required<int64_t>("num_hidden_layers", between(1, kMaxLayers));
  const auto check_length = [&](const char* key, const std::vector<std::string>& list) {
    if (static_cast<int64_t>(list.size()) != num_layers) {
      values.fail(key, concat("a list of num_hidden_layers (", num_layers, ") names"), concat(list.size()));
    }
  };
  if (values.has("layer_types")) {
    const auto types = values.required<std::vector<std::string>>("layer_types");
    check_length("layer_types", types);
    for (const std::string& type : types) {
      if (type != "full_attention") values.fail("layer_types", "full_attention", type);
    }
  }
  values.know("layer_types");
  std::vector<bool> sparse(num_layers, true);
  if (values.has("mlp_layer_types")) {
    const auto types = values.required<std::vector<std::string>>("mlp_layer_types");
    check_length("mlp_layer_types", types);
    for (int64_t i = 0; i < num_layers; ++i) {
      if (types[i] != "dense" && types[i] != "sparse")
        values.fail("mlp_layer_types", "dense or sparse", types[i]);
      sparse[i] = types[i] == "sparse";
    }
  }
  values.know("mlp_layer_types");
  return sparse;
}

void read_head_dim(ConfigValues& values, AttentionOptions& attention) {
  if (!values.has("head_dim") && attention.hidden_size % attention.num_heads != 0) {
    values.fail("head_dim",
                concat("a value, for hidden_size ", attention.hidden_size,
                       " is no multiple of num_attention_heads ", attention.num_heads),
                "none");
  }
  attention.head_dim = values.optional<int64_t>("head_dim", attention.hidden_size / attention.num_heads,
                                                between(1, kMaxHeadDim));
  if (attention.head_dim % 2 != 0) values.fail("head_dim", "an even number", concat(attention.head_dim));
}

// A key without effect is more likely a misunderstanding than a wish.
void refuse(ConfigValues& values, std::string_view key, const char* where) {
  if (values.has(key)) {
    values.fail(key, concat("no such key where ", where), values.object().at(key).dump(), "leave it out");
  }
  values.know(key);
}

Activation read_activation(ConfigValues& values, bool gated) {
  const std::string name = values.choice(
      "hidden_act",
      gated ? std::vector<std::string>{"silu", "swish", "swiglu", "gelu", "geglu", "clamped_swiglu"}
            : std::vector<std::string>{"silu", "swish", "gelu", "relu"},
      "silu");
  return parse_activation(name, gated);
}

}  // namespace

DecoderOptions parse_motley_config(const nlohmann::json& config, const std::string& source) {
  ConfigValues values(config, source);
  for (const char* key : kInformative) values.know(key);

  DecoderOptions options = read_decoder(values);
  options.sparse = read_layers(values);
  read_head_dim(values, options.attention);

  const bool any_sparse =
      std::find(options.sparse.begin(), options.sparse.end(), true) != options.sparse.end();
  const bool any_dense =
      std::find(options.sparse.begin(), options.sparse.end(), false) != options.sparse.end();
  if (!any_sparse) {
    for (const std::string& key : moe_keys()) refuse(values, key, "every layer is dense");
    refuse(values, "gated_experts", "every layer is dense");
  }
  const bool gated = !any_sparse || values.optional<bool>("gated_experts", true);
  if (!gated && any_dense) values.fail("gated_experts", "true where there are dense layers", "false");
  const Activation activation = read_activation(values, gated);
  if (any_dense) {
    if (activation.kind == ActivationKind::kClampedSwiGlu) {
      values.fail("hidden_act", "silu or gelu where there are dense layers", "clamped_swiglu");
    }
    options.dense_width = values.required<int64_t>("intermediate_size", between(1, kMaxWidth));
    options.dense_activation = activation;
  } else {
    refuse(values, "intermediate_size", "every layer is sparse");
  }
  if (any_sparse) {
    options.moe = read_moe_options(values);
    options.moe.gate.hidden_size = options.hidden_size();
    options.moe.activation = activation;
  }
  values.finish();
  return options;
}

}  // namespace motley
