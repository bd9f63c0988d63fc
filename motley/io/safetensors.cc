#include "motley/io/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/io/safetensors_dtype.h"

namespace motley {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors is little-endian");

// The reference implementation's limit; a foreign file's first bytes almost surely exceed it.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kLengthBytes = 8;

class HeaderReader {
 public:
  HeaderReader(const std::filesystem::path& path, const MappedFile& file) : path_(path), file_(file) {}

  nlohmann::json read() {
    if (file_.size() < kLengthBytes) {
      fail("", concat("a safetensors file of at least ", kLengthBytes, " bytes"),
           concat(file_.size(), " bytes"));
    }
    uint64_t length = 0;
    std::memcpy(&length, file_.data(), kLengthBytes);
    const auto* text = reinterpret_cast<const char*>(file_.data()) + kLengthBytes;
    if (length > kMaxHeaderBytes || (file_.size() > kLengthBytes && *text != '{')) {
      fail("", "a safetensors file", "another kind of file");
    }
    if (length > file_.size() - kLengthBytes) {
      fail("", concat("a header of ", length, " bytes"),
           concat("only ", file_.size() - kLengthBytes, " bytes after its length"), "the file is truncated");
    }
    data_begin_ = kLengthBytes + length;
    check_json_depth({text, length}, path_.string());
    try {
      auto header = nlohmann::json::parse(text, text + length);
      if (header.is_object()) return header;
    } catch (const nlohmann::json::exception& error) {
      fail("header", "JSON", error.what());
    }
    fail("header", "a JSON object", "something else");
  }

  TensorEntry entry(const std::string& name, const nlohmann::json& value) const {
    TensorEntry entry{};
    if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets")) {
      fail(name, "dtype, shape and data_offsets", value.dump());
    }
    const auto& dtype = value["dtype"];
    const auto known = dtype.is_string() ? safetensors_dtype(dtype.get<std::string>()) : std::nullopt;
    if (!known) fail(name, concat("a dtype of ", safetensors_dtype_names()), dtype.dump());
    entry.dtype = *known;

    const auto whole = [](const nlohmann::json& number) { return number.is_number_unsigned(); };
    const auto& shape = value["shape"];
    if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), whole)) {
      fail(name, "a shape of whole numbers", shape.dump());
    }
    entry.shape = shape.get<std::vector<int64_t>>();

    const auto& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 || !whole(offsets[0]) || !whole(offsets[1])) {
      fail(name, "data_offsets [begin, end]", offsets.dump());
    }
    const uint64_t begin = offsets[0], end = offsets[1], available = file_.size() - data_begin_;
    if (begin > end || end > available) {
      fail(name, concat("data within ", available, " bytes"), concat("data_offsets ", offsets.dump()),
           end > available ? "the file is truncated" : "");
    }
    if (end - begin != num_bytes(name, entry)) {
      fail(name, concat(num_bytes(name, entry), " bytes for ", dtype.dump(), " ", shape.dump()),
           concat("data_offsets ", offsets.dump()));
    }
    entry.begin = data_begin_ + begin;
    entry.end = data_begin_ + end;
    return entry;
  }

  // Every byte of a file but gaps between tensors is accounted for: what shares bytes, or lies past the last
  // tensor, is from another file.
  void check_layout(const std::map<std::string, TensorEntry>& entries) const {
    uint64_t data_end = data_begin_;
    std::vector<std::pair<uint64_t, const std::string*>> order;
    for (const auto& [name, entry] : entries) {
      if (entry.begin != entry.end) order.emplace_back(entry.begin, &name);
      data_end = std::max(data_end, entry.end);
    }
    std::sort(order.begin(), order.end());
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i].first < entries.at(*order[i - 1].second).end) {
        fail(*order[i].second, "data of its own", concat("bytes shared with ", *order[i - 1].second));
      }
    }
    if (data_end < file_.size()) {
      fail("", concat(data_end, " bytes, where the last tensor ends"), concat(file_.size(), " bytes"));
    }
  }

  [[noreturn]] void fail(const std::string& tensor, const std::string& expected, const std::string& found,
                         const std::string& fix = {}) const {
    const std::string where = tensor.empty() ? path_.string() : concat(path_.string(), ": ", tensor);
    throw UserError(Mistake{where, expected, found, fix});
  }

 private:
  uint64_t num_bytes(const std::string& name, const TensorEntry& entry) const {
    int64_t bytes = static_cast<int64_t>(c10::elementSize(entry.dtype));  // strides count a size of 0 as 1
    for (const int64_t size : entry.shape) {
      if (size < 0 || __builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes)) {
        fail(name, "a shape that fits into memory", nlohmann::json(entry.shape).dump());
      }
    }
    return std::find(entry.shape.begin(), entry.shape.end(), 0) == entry.shape.end() ? bytes : 0;
  }

  const std::filesystem::path& path_;
  const MappedFile& file_;
  uint64_t data_begin_ = 0;
};

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path), file_(std::make_shared<MappedFile>(path)) {
  HeaderReader reader(path_, *file_);
  const nlohmann::json header = reader.read();
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) reader.fail("__metadata__." + key, "a string", text.dump());
        metadata_[key] = text.get<std::string>();
      }
    } else {
      entries_.emplace(name, reader.entry(name, value));
    }
  }
  reader.check_layout(entries_);
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    throw UserError(Mistake{path_.string(), concat("a tensor ", name), "none of that name", {}});
  }
  const TensorEntry& entry = found->second;
  const auto options = at::TensorOptions().dtype(entry.dtype);
  if (entry.begin == entry.end) return at::empty(entry.shape, options);
  std::byte* data = file_->data() + entry.begin;
  // The deleter's copy of the pointer keeps the mapping for as long as the view lives.
  const auto view = at::from_blob(
      data, entry.shape, [file = file_](void*) {}, options);
  const auto address = reinterpret_cast<uintptr_t>(data);
  if (address % c10::elementSize(entry.dtype) == 0) return view;
  // The format allows any alignment; operators do not.
  auto aligned = at::empty(entry.shape, options);
  std::memcpy(aligned.mutable_data_ptr(), data, entry.end - entry.begin);
  return aligned;
}

}  // namespace motley
