#include "motley/models/moe_plus_plus/moe_plus_plus_family.h"

#include <nlohmann/json.hpp>

#include "motley/models/decoder/decoder_lm.h"
#include "motley/models/decoder/decoder_memory.h"
#include "motley/models/moe_plus_plus/moe_plus_plus_config.h"
#include "motley/models/moe_plus_plus/moe_plus_plus_names.h"

namespace motley {
namespace {

ModelSize check(const nlohmann::json& config, const std::string& source, const BuildOptions& build) {
  return size_of(for_build(parse_moe_plus_plus_config(config, source), build, source));
}

std::unique_ptr<CausalLm> build(const nlohmann::json& config, const std::string& source,
                                const BuildOptions& build) {
  const DecoderOptions options = for_build(parse_moe_plus_plus_config(config, source), build, source);
  nlohmann::json published = config;
  published["torch_dtype"] = dtype_name(build.dtype);
  return std::make_unique<DecoderLm>(options, std::move(published));
}

// Old Llama-like checkpoints carry the rotary frequencies, which follow from rope_theta.
bool ignores(const std::string& published_name) { return published_name.ends_with(".rotary_emb.inv_freq"); }

}  // namespace

const ModelFamily kMoePlusPlusFamily = {"MoE++", check, build, read_moe_plus_plus, publish_moe_plus_plus,
                                        ignores};

}  // namespace motley
