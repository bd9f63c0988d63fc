// safetensors: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, raw data.
// Format: https://github.com/huggingface/safetensors. Every malformed file is one UserError.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "motley/io/mapped_file.h"

namespace motley {

struct TensorEntry {
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  uint64_t begin, end;  // bytes from the start of the file
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// One file, mapped. Reading a tensor costs no copy; the views keep the mapping alive and are
// copy-on-write: writing into one never reaches the file.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, TensorEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return entries_.contains(name); }
  at::Tensor tensor(const std::string& name) const;

 private:
  std::filesystem::path path_;
  std::shared_ptr<MappedFile> file_;
  std::map<std::string, TensorEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

// The tensors of a folder: model.safetensors, or the shards that model.safetensors.index.json lists.
class TensorFolder {
 public:
  // stem: "model" for models; a trainer may keep "optimizer.safetensors" beside it.
  explicit TensorFolder(const std::filesystem::path& folder, const std::string& stem = "model");

  const std::filesystem::path& folder() const { return folder_; }
  std::vector<std::string> names() const;  // sorted
  bool contains(const std::string& name) const { return file_of_.contains(name); }
  at::Tensor tensor(const std::string& name) const;
  // Throws UserError naming the tensor, its file, the expected and the found shape.
  at::Tensor tensor(const std::string& name, at::IntArrayRef expected_shape) const;

 private:
  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*> file_of_;
};

// One file, atomically. Tensors in the given order; made contiguous one at a time.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// <stem>.safetensors, or <stem>-00001-of-0000N.safetensors and <stem>.safetensors.index.json when the
// tensors take more than max_shard_bytes. Each file is atomic; write into an AtomicFolder to make the
// set atomic too.
void write_tensor_folder(const std::filesystem::path& folder, const NamedTensors& tensors,
                         const std::string& stem = "model", uint64_t max_shard_bytes = uint64_t{5} << 30);

}  // namespace motley
