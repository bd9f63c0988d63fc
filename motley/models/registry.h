// All model families, and how models are made, loaded and saved: Hugging Face's folder layout.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "motley/models/causal_lm.h"
#include "motley/models/model_size.h"

namespace motley {

struct LoadOptions {
  std::optional<at::ScalarType> dtype;  // not given: config.json's torch_dtype, else the tensors' own
  // Gradients of bf16 expert weights are added up in fp32: see ResidentStoreOptions.
  bool fp32_expert_gradients = false;
  at::Device device = at::kCPU;  // where the model is moved after it is read
};

// The model types that load_model and make_model know, sorted.
std::vector<std::string> known_model_types();

// A folder with config.json and model.safetensors (or shards): a model folder, a training checkpoint's
// step_<n>/, or a run folder (its model/, else its best, else its last checkpoint).
// Throws UserError: no such folder, unknown model_type, bad keys, missing or misshapen tensors.
std::unique_ptr<CausalLm> load_model(const std::filesystem::path& path, const LoadOptions& options = {});

struct MakeOptions {
  bool fp32_expert_gradients = false;  // see LoadOptions
  std::string source = "config.json";  // names the configuration in errors, see key_place()
  double bytes_per_parameter = 0;      // that this process will need in the end, if more than the weights'
};

// Throws what make_model() throws for the configuration's sake, and takes no time.
ModelSize check_model(const nlohmann::json& config, at::ScalarType dtype, const MakeOptions& options = {});

// A fresh model, randomly initialised; the same seed gives the same bits with any number of threads.
// dtype: fp32 or bf16 (values are drawn in fp32, then rounded). config: as config.json.
std::unique_ptr<CausalLm> make_model(const nlohmann::json& config, uint64_t seed, at::ScalarType dtype,
                                     const MakeOptions& options = {});

// Writes config.json and model.safetensors (or shards and their index) into `folder`, under the names
// the family publishes. Each file is atomic; write into an AtomicFolder to make the whole atomic.
void save_model(CausalLm& model, const std::filesystem::path& folder,
                uint64_t max_shard_bytes = uint64_t{5} << 30);

// "step_<n>", and n of a path that ends so: how a run's checkpoints are named.
std::string checkpoint_name(int64_t step);
std::optional<int64_t> checkpoint_step(const std::filesystem::path& path);

// Where load_model would read from: `path` itself, or a run folder's model or checkpoint.
std::filesystem::path find_model_folder(const std::filesystem::path& path);

}  // namespace motley
