#include "motley/train/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/base/log.h"
#include "motley/io/atomic_file.h"

namespace motley {
namespace {

// Where the last whole line of the first `size` bytes ends.
int64_t end_of_lines(int fd, int64_t size) {
  for (char byte = 0; size > 0; --size) {
    if (::pread(fd, &byte, 1, size - 1) == 1 && byte == '\n') break;
  }
  return size;
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path path, int64_t keep_bytes) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_file_error("write", path_.string(), errno);
  const int64_t found = ::lseek(fd_, 0, SEEK_END);
  size_ = end_of_lines(fd_, std::min(keep_bytes, found));
  if (size_ < keep_bytes) {
    log_warn(path_.string(), ": expected ", keep_bytes, " bytes from before this start, found ", size_,
             " in whole lines; what is missing is lost to the report, not to the training");
  }
  if (::ftruncate(fd_, size_) != 0 || ::lseek(fd_, size_, SEEK_SET) < 0) {
    const int error = errno;
    ::close(fd_);
    throw_file_error("write", path_.string(), error);
  }
  sync_folder(path_.has_parent_path() ? path_.parent_path() : std::filesystem::path("."));
}

MetricsLog::~MetricsLog() { ::close(fd_); }

void MetricsLog::write(const nlohmann::json& line) {
  const std::string text = json_text(line) + '\n';
  write_all(fd_, text.data(), text.size(), path_);
  size_ += static_cast<int64_t>(text.size());
}

int64_t MetricsLog::sync() {
  if (::fsync(fd_) != 0) throw_file_error("write", path_.string(), errno);
  return size_;
}

}  // namespace motley
