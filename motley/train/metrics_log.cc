#include "motley/train/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "motley/base/error.h"

namespace motley {

MetricsLog::MetricsLog(std::filesystem::path path, int64_t keep_bytes) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_file_error("write", path_.string(), errno);
  const off_t found = ::lseek(fd_, 0, SEEK_END);
  size_ = std::min<int64_t>(keep_bytes, found);
  if (::ftruncate(fd_, size_) != 0 || ::lseek(fd_, size_, SEEK_SET) < 0) {
    const int error = errno;
    ::close(fd_);
    throw_file_error("write", path_.string(), error);
  }
}

MetricsLog::~MetricsLog() { ::close(fd_); }

void MetricsLog::write(const nlohmann::json& line) {
  const std::string text = to_line(line) + '\n';
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = ::write(fd_, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_file_error("write", path_.string(), errno);
    done += static_cast<size_t>(written);
  }
  size_ += static_cast<int64_t>(text.size());
}

int64_t MetricsLog::sync() {
  if (::fsync(fd_) != 0) throw_file_error("write", path_.string(), errno);
  return size_;
}

std::string to_line(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace motley
