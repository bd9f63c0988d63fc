// A folder of one test's own, removed when the test ends.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

#include "tests/support/user_error.h"

namespace motley {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "motley_test_XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw UserError("cannot make " + pattern);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace motley
