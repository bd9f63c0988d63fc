// A folder that goes away with its test.
#pragma once

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/io/temporary_folder.h"

namespace motley {

class RunPlace : public TemporaryFolder {
 public:
  std::filesystem::path write(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((*this / name).parent_path());
    std::ofstream(*this / name, std::ios::binary) << content;
    return *this / name;
  }
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
