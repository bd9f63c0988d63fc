#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>

#include "motley/base/error.h"
#include "motley/io/atomic_file.h"
#include "motley/io/safetensors.h"
#include "motley/io/safetensors_dtype.h"

namespace motley {
namespace {

std::string make_header(const NamedTensors& tensors, const std::map<std::string, std::string>& metadata) {
  // Order does not matter to readers; a JSON object keeps names unique and the header reproducible.
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    MOTLEY_CHECK(!header.contains(name), "two tensors named ", name);
    const uint64_t end = offset + tensor.numel() * tensor.element_size();
    header[name] = {{"dtype", safetensors_dtype_name(tensor.scalar_type(), name)},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  // Padding aligns the data for readers that map the file.
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(tensors, metadata);
  const uint64_t length = header.size();
  AtomicFile file(path);
  file.write(&length, sizeof(length));
  file.write(header);
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor data = tensor.detach().to(at::kCPU).contiguous();
    file.write(data.const_data_ptr(), data.numel() * data.element_size());
  }
  file.commit();
}

void write_tensor_folder(const std::filesystem::path& folder, const NamedTensors& tensors,
                         const std::string& stem, uint64_t max_shard_bytes) {
  std::vector<NamedTensors> shards(1);
  uint64_t shard_bytes = 0, total = 0;
  for (const auto& named : tensors) {
    const uint64_t bytes = named.second.numel() * named.second.element_size();
    if (!shards.back().empty() && shard_bytes + bytes > max_shard_bytes) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shards.back().push_back(named);
    shard_bytes += bytes;
    total += bytes;
  }
  const std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (shards.size() == 1) {
    write_safetensors(folder / (stem + ".safetensors"), tensors, metadata);
    return;
  }
  nlohmann::json weight_map = nlohmann::json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const auto number = [](size_t n) {
      const std::string digits = std::to_string(n);
      return std::string(5 - std::min<size_t>(5, digits.size()), '0') + digits;
    };
    const std::string file = concat(stem, "-", number(i + 1), "-of-", number(shards.size()), ".safetensors");
    write_safetensors(folder / file, shards[i], metadata);
    for (const auto& [name, tensor] : shards[i]) weight_map[name] = file;
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  write_file_atomic(folder / (stem + ".safetensors.index.json"), index.dump(1) + "\n");
}

}  // namespace motley
