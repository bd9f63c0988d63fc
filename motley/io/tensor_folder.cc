#include <nlohmann/json.hpp>
#include <set>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/io/safetensors.h"

namespace motley {
namespace {

namespace fs = std::filesystem;

std::map<std::string, std::string> read_weight_map(const fs::path& index) {
  const nlohmann::json json = read_json_file(index.string());
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (map == json.end() || !map->is_object()) {
    throw UserError(Mistake{index.string(), "an object weight_map: {tensor: file}", "none", {}});
  }
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : map->items()) {
    // A name with a folder in it could reach outside of the model.
    if (!file.is_string() || fs::path(file.get<std::string>()).filename() != file.get<std::string>()) {
      throw UserError(
          Mistake{concat(index.string(), ": ", name), "the name of a file beside it", file.dump(), {}});
    }
    files[name] = file.get<std::string>();
  }
  return files;
}

}  // namespace

TensorFolder::TensorFolder(const fs::path& folder, const std::string& stem) : folder_(folder) {
  const fs::path single = folder / (stem + ".safetensors");
  const fs::path index = folder / (stem + ".safetensors.index.json");
  if (fs::exists(single)) {
    files_.push_back(std::make_unique<SafetensorsFile>(single));
    for (const auto& [name, entry] : files_[0]->entries()) file_of_[name] = files_[0].get();
    return;
  }
  if (!fs::exists(index)) {
    throw UserError(Mistake{folder.string(),
                            concat(single.filename().string(), " or ", index.filename().string()),
                            fs::is_directory(folder) ? "neither" : "no such folder",
                            {}});
  }
  std::map<std::string, const SafetensorsFile*> opened;
  for (const auto& [name, file] : read_weight_map(index)) {
    const SafetensorsFile*& shard = opened[file];
    if (shard == nullptr) {
      files_.push_back(std::make_unique<SafetensorsFile>(folder / file));
      shard = files_.back().get();
    }
    if (!shard->contains(name)) {
      throw UserError(
          Mistake{shard->path().string(),
                  concat("the tensor ", name, ", which ", index.filename().string(), " places there"),
                  "none of that name",
                  {}});
    }
    file_of_[name] = shard;
  }
}

std::vector<std::string> TensorFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

at::Tensor TensorFolder::tensor(const std::string& name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) {
    const std::string near = nearest_word(name, names());
    throw UserError(Mistake{folder_.string(), concat("a tensor ", name), "none of that name",
                            near.empty() ? "" : concat("the nearest is ", near)});
  }
  return found->second->tensor(name);
}

at::Tensor TensorFolder::tensor(const std::string& name, at::IntArrayRef expected_shape) const {
  at::Tensor tensor = this->tensor(name);
  if (tensor.sizes() != expected_shape) {
    throw UserError(Mistake{concat(file_of_.at(name)->path().string(), ": ", name),
                            concat("shape ", expected_shape), concat("shape ", tensor.sizes()),
                            "config.json and the tensors must belong together"});
  }
  return tensor;
}

}  // namespace motley
