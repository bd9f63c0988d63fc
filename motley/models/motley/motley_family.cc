#include "motley/models/motley/motley_family.h"

#include <nlohmann/json.hpp>

#include "motley/models/decoder/decoder_lm.h"
#include "motley/models/motley/motley_config.h"

namespace motley {
namespace {

std::unique_ptr<CausalLm> build(const nlohmann::json& config, const std::string& source,
                                const BuildOptions& build) {
  DecoderOptions options = parse_motley_config(config, source);
  options.dtype = build.dtype;
  options.moe.fp32_expert_gradients = build.fp32_expert_gradients;
  nlohmann::json published = config;
  published.erase("dtype");
  published["torch_dtype"] = dtype_name(build.dtype);
  return std::make_unique<DecoderLm>(options, std::move(published));
}

}  // namespace

// The model's names are the published ones.
const ModelFamily kMotleyFamily = {"motley", build, read_same_name, publish_same_name, ignores_nothing};

}  // namespace motley
