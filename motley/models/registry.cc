#include "motley/models/registry.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/io/atomic_file.h"
#include "motley/io/safetensors.h"
#include "motley/models/decoder/decoder_config.h"
#include "motley/models/initialisation.h"
#include "motley/models/model_family.h"
#include "motley/models/moe_plus_plus/moe_plus_plus_family.h"
#include "motley/models/motley/motley_family.h"

namespace motley {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.json";

// Every family there is.
const std::vector<const ModelFamily*>& families() {
  static const std::vector<const ModelFamily*> all = {&kMotleyFamily, &kMoePlusPlusFamily};
  return all;
}

const ModelFamily& find_family(const nlohmann::json& config, const std::string& source) {
  const auto type = config.is_object() ? config.find("model_type") : config.end();
  const std::string name = type != config.end() && type->is_string() ? type->get<std::string>() : "";
  for (const ModelFamily* family : families()) {
    if (family->model_type == name) return *family;
  }
  std::string known;
  for (const std::string& each : known_model_types()) known += (known.empty() ? "" : ", ") + each;
  throw UserError(Mistake{key_place(source, "model_type"),
                          concat("one of ", known),
                          type != config.end() ? type->dump() : "no such key",
                          {}});
}

// The dtype to load in: what the caller asks for, config.json's, the first tensor's.
at::ScalarType choose_dtype(const nlohmann::json& config, const std::string& source,
                            const LoadOptions& options, const TensorFolder& files) {
  if (options.dtype) return *options.dtype;
  ConfigValues values(config, source);
  if (const auto dtype = read_dtype(values)) return *dtype;
  for (const std::string& name : files.names()) {
    const at::ScalarType dtype = files.tensor(name).scalar_type();
    if (c10::isFloatingType(dtype)) return dtype == at::kBFloat16 ? dtype : at::kFloat;
  }
  return at::kFloat;
}

void check_dtype(at::ScalarType dtype) {
  if (dtype != at::kFloat && dtype != at::kBFloat16) {
    throw UserError(Mistake{"dtype", "fp32 or bf16", c10::toString(dtype), {}});
  }
}

BuildOptions build_options(at::ScalarType dtype, const MakeOptions& options) {
  return {dtype, options.fp32_expert_gradients, options.bytes_per_parameter};
}

void check_safetensors(const fs::path& folder) {
  if (!fs::exists(folder / "model.safetensors") && !fs::exists(folder / "model.safetensors.index.json") &&
      (fs::exists(folder / "pytorch_model.bin") || fs::exists(folder / "pytorch_model.bin.index.json"))) {
    throw UserError(Mistake{folder.string(), "model.safetensors", "only pytorch_model.bin, a Python pickle",
                            concat("convert it once with: scripts/convert_pickle.py ", folder.string())});
  }
}

}  // namespace

std::vector<std::string> known_model_types() {
  std::vector<std::string> types;
  for (const ModelFamily* family : families()) types.emplace_back(family->model_type);
  std::sort(types.begin(), types.end());
  return types;
}

std::unique_ptr<CausalLm> load_model(const fs::path& path, const LoadOptions& options) {
  const fs::path folder = find_model_folder(path);
  const std::string source = (folder / kConfig).string();
  const nlohmann::json config = read_json_file(source);
  const ModelFamily& family = find_family(config, source);
  check_safetensors(folder);
  const TensorFolder files(folder);
  const BuildOptions build{choose_dtype(config, source, options, files), options.fp32_expert_gradients};
  check_dtype(build.dtype);
  auto model = family.build(config, source, build);

  const at::NoGradGuard no_grad;
  CheckpointReader reader(files);
  model->visit([&](const std::string& name, at::Tensor& tensor, TensorRole) {
    family.read(reader, *model, name, tensor);
  });
  for (const std::string& name : reader.unused()) {
    if (family.ignores(name)) continue;
    throw UserError(Mistake{concat(folder.string(), ": ", name), "no such tensor for this config.json",
                            concat("one of shape ", nlohmann::json(files.tensor(name).sizes().vec()).dump()),
                            "config.json and the tensors must belong together"});
  }
  model->to(options.device);
  return model;
}

ModelSize check_model(const nlohmann::json& config, at::ScalarType dtype, const MakeOptions& options) {
  const ModelFamily& family = find_family(config, options.source);
  check_dtype(dtype);
  ConfigValues values(config, options.source);
  if (const auto named = read_dtype(values); named && *named != dtype) {
    values.fail(values.has("torch_dtype") ? "torch_dtype" : "dtype",
                concat("no such key, or ", dtype_name(dtype), ", the dtype of the run"), dtype_name(*named));
  }
  return family.check(config, options.source, build_options(dtype, options));
}

std::unique_ptr<CausalLm> make_model(const nlohmann::json& config, uint64_t seed, at::ScalarType dtype,
                                     const MakeOptions& options) {
  check_model(config, dtype, options);
  auto model =
      find_family(config, options.source).build(config, options.source, build_options(dtype, options));
  const auto std = config.find("initializer_range");
  initialise(*model, seed, std != config.end() && std->is_number() ? std->get<double>() : 0.02,
             model->kv_cache_shape().num_layers);
  return model;
}

void save_model(CausalLm& model, const fs::path& folder, uint64_t max_shard_bytes) {
  const at::NoGradGuard no_grad;
  const nlohmann::json config = model.config();
  const ModelFamily& family = find_family(config, "model");
  NamedTensors tensors;
  model.visit([&](const std::string& name, at::Tensor& tensor, TensorRole) {
    for (auto& published : family.publish(model, name, tensor.detach()))
      tensors.push_back(std::move(published));
  });
  write_tensor_folder(folder, tensors, "model", max_shard_bytes);
  write_file_atomic(folder / kConfig, config.dump(2) + "\n");
}

void read_same_name(CheckpointReader& reader, const CausalLm&, const std::string& name, at::Tensor& tensor) {
  reader.copy_into(name, tensor);
}

NamedTensors publish_same_name(const CausalLm&, const std::string& name, const at::Tensor& tensor) {
  return {{name, tensor}};
}

bool ignores_nothing(const std::string& published_name) { return false; }

std::string dtype_name(at::ScalarType dtype) { return dtype == at::kBFloat16 ? "bfloat16" : "float32"; }

}  // namespace motley
