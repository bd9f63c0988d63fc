// A folder that goes away with its test.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace motley {

class RunPlace {
 public:
  RunPlace() {
    std::string name = (std::filesystem::temp_directory_path() / "motley_train_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~RunPlace() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << content;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::string read_text(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// Text with some structure to learn.
inline std::string some_text(size_t size) {
  std::string text;
  for (size_t i = 0; text.size() < size; ++i)
    text += (i % 7 == 3 ? "the dog sat. " : "a cat ran and ") + std::to_string(i % 5);
  return text.substr(0, size);
}

}  // namespace motley
