// A file mapped into memory.
#pragma once

#include <cstddef>
#include <filesystem>

namespace motley {

// Private mapping: pages come in as they are read; writes stay in this process.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // UserError: missing, no permission, no file
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;  // null for an empty file
  size_t size_ = 0;
};

}  // namespace motley
