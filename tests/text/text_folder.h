// A folder that goes away with its test, and files in it.
#pragma once

#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/io/temporary_folder.h"

namespace motley {

class TextFolder : public TemporaryFolder {
 public:
  std::filesystem::path write(const std::string& name, const std::string& content) const {
    const auto path = *this / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  std::filesystem::path write_gzip(const std::string& name, const std::string& content) const {
    const auto path = *this / name;
    gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
    gzclose(file);
    return path;
  }
};

}  // namespace motley
