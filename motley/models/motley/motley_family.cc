#include "motley/models/motley/motley_family.h"

#include <nlohmann/json.hpp>

#include "motley/models/decoder/decoder_lm.h"
#include "motley/models/decoder/decoder_memory.h"
#include "motley/models/motley/motley_config.h"

namespace motley {
namespace {

ModelSize check(const nlohmann::json& config, const std::string& source, const BuildOptions& build) {
  return size_of(for_build(parse_motley_config(config, source), build, source));
}

std::unique_ptr<CausalLm> build(const nlohmann::json& config, const std::string& source,
                                const BuildOptions& build) {
  const DecoderOptions options = for_build(parse_motley_config(config, source), build, source);
  nlohmann::json published = config;
  published.erase("dtype");
  published["torch_dtype"] = dtype_name(build.dtype);
  return std::make_unique<DecoderLm>(options, std::move(published));
}

}  // namespace

// The model's names are the published ones.
const ModelFamily kMotleyFamily = {"motley",          check,          build, read_same_name,
                                   publish_same_name, ignores_nothing};

}  // namespace motley
