// What a family of models gives to the registry.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "motley/io/safetensors.h"
#include "motley/models/causal_lm.h"
#include "motley/models/checkpoint_reader.h"
#include "motley/models/model_size.h"

namespace motley {

struct BuildOptions {
  at::ScalarType dtype = at::kFloat;
  bool fp32_expert_gradients = false;
  double bytes_per_parameter = 0;  // see MakeOptions
};

struct ModelFamily {
  std::string_view model_type;  // as config.json has it

  // Throws what build() throws for the configuration's sake, and takes no time.
  ModelSize (*check)(const nlohmann::json& config, const std::string& source, const BuildOptions& options);

  // The model with zeros as weights. `source` names the configuration in errors.
  std::unique_ptr<CausalLm> (*build)(const nlohmann::json& config, const std::string& source,
                                     const BuildOptions& options);

  // Fills `tensor`, which the model calls `name`, from the published tensors.
  void (*read)(CheckpointReader& reader, const CausalLm& model, const std::string& name, at::Tensor& tensor);

  // What stands for `tensor` under published names; the opposite of read. Views where possible.
  NamedTensors (*publish)(const CausalLm& model, const std::string& name, const at::Tensor& tensor);

  // Published tensors that no model needs, and that are passed over without a word.
  bool (*ignores)(const std::string& published_name);
};

// For families that publish their tensors as the model has them.
void read_same_name(CheckpointReader& reader, const CausalLm& model, const std::string& name,
                    at::Tensor& tensor);
NamedTensors publish_same_name(const CausalLm& model, const std::string& name, const at::Tensor& tensor);
bool ignores_nothing(const std::string& published_name);

// "float32" or "bfloat16", as torch_dtype has it.
std::string dtype_name(at::ScalarType dtype);

}  // namespace motley
