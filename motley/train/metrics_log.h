// metrics.jsonl: one JSON object a line, in the order of steps.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace motley {

class MetricsLog {
 public:
  // Goes on behind the first `keep_bytes` bytes; what follows them is cut off. A file that has lost bytes, as
  // in a power cut, is warned of and goes on behind its last whole line. Throws UserError when it cannot be
  // written.
  MetricsLog(std::filesystem::path path, int64_t keep_bytes);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void write(const nlohmann::json& line);
  // Bytes so far, all of them on the disk.
  int64_t sync();
  bool empty() const { return size_ == 0; }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

}  // namespace motley
