// A folder that goes away with its test, and files in it.
#pragma once

#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace motley {

class TextFolder {
 public:
  TextFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "motley_text_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TextFolder() { std::filesystem::remove_all(path_); }

  std::filesystem::path write(const std::string& name, const std::string& content) const {
    const auto path = path_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  std::filesystem::path write_gzip(const std::string& name, const std::string& content) const {
    const auto path = path_ / name;
    gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
    gzclose(file);
    return path;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace motley
