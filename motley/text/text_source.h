// Text from a file, a .gz file or a folder of them, streamed: never whole in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace motley {

class TextSource {
 public:
  // A file, or a folder whose files are taken recursively in the byte order of their paths; names that
  // start with a dot are passed over, and so are files of a folder that are empty or not text (skipped()).
  // Text is what has no zero byte. Throws UserError when the path is missing, cannot be read, is not
  // text, or has no text.
  explicit TextSource(const std::filesystem::path& path);

  const std::vector<std::filesystem::path>& files() const { return files_; }
  const std::vector<std::filesystem::path>& skipped() const { return skipped_; }

  // Hands the concatenated text to `sink` piece by piece; returns its length in bytes. Throws UserError
  // naming the file when one cannot be read, is truncated (.gz) or holds a zero byte further in.
  uint64_t read(const std::function<void(std::string_view)>& sink) const;

 private:
  std::vector<std::filesystem::path> files_, skipped_;
};

}  // namespace motley
