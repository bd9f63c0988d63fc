// metrics.jsonl: one JSON object a line, in the order of steps.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace motley {

class MetricsLog {
 public:
  // Goes on behind the first `keep_bytes` bytes; what follows them is cut off. Throws UserError when the
  // file cannot be written.
  MetricsLog(std::filesystem::path path, int64_t keep_bytes);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void write(const nlohmann::json& line);
  // Bytes so far, all of them on the disk.
  int64_t sync();

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// Text that is not valid UTF-8 has its bad bytes replaced.
std::string to_line(const nlohmann::json& json);

}  // namespace motley
