#include "motley/io/atomic_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <vector>

#include "motley/base/error.h"

namespace motley {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kUnfinishedSuffix = ".unfinished";
constexpr std::string_view kSwappedOutSuffix = ".old.unfinished";

fs::path neighbour(const fs::path& path) { return path.string() + std::string(kUnfinishedSuffix); }

[[noreturn]] void fail(const std::string& action, const fs::path& path, const std::error_code& error) {
  throw_file_error(action, path.string(), error.value());
}

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail("remove", path, error);
}

void sync_path(const fs::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) throw_file_error("open", path.string(), errno);
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  // Some file systems cannot sync a folder; they have nothing to sync there then.
  if (result != 0 && !((flags & O_DIRECTORY) && error == EINVAL))
    throw_file_error("sync", path.string(), error);
}

void sync_tree(const fs::path& root) {
  std::error_code error;
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    if (it->is_symlink()) continue;
    if (it->is_directory()) sync_folder(it->path());
    if (it->is_regular_file()) sync_path(it->path(), O_RDONLY);
  }
  if (error) fail("list", root, error);
  sync_folder(root);
}

}  // namespace

void sync_folder(const fs::path& path) { sync_path(path, O_RDONLY | O_DIRECTORY); }

bool make_folder(const fs::path& path) {
  std::error_code error;
  std::vector<fs::path> missing;
  for (fs::path folder = path; !fs::exists(folder, error); folder = parent_of(folder)) {
    missing.push_back(folder);
  }
  const bool made = fs::create_directories(path, error);
  if (error) fail("make the folder", path, error);
  if (!fs::is_directory(path)) throw_file_error("make the folder", path.string(), ENOTDIR);
  for (const fs::path& folder : missing) sync_folder(parent_of(folder));
  return made;
}

void check_folder(const fs::path& path) {
  std::error_code error;
  fs::path nearest = path;
  while (!fs::exists(nearest, error) && parent_of(nearest) != nearest) nearest = parent_of(nearest);
  const int reason = !fs::is_directory(nearest, error)                                      ? ENOTDIR
                     : ::faccessat(AT_FDCWD, nearest.c_str(), W_OK | X_OK, AT_EACCESS) != 0 ? errno
                                                                                            : 0;
  if (reason != 0)
    throw_file_error(nearest == path ? "write into" : "make the folder", path.string(), reason);
}

void write_all(int fd, const void* data, size_t num_bytes, const fs::path& path) {
  auto at = static_cast<const char*>(data);
  while (num_bytes > 0) {
    const ssize_t written = ::write(fd, at, num_bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_file_error("write", path.string(), errno);
    at += written;
    num_bytes -= static_cast<size_t>(written);
  }
}

void restore_swapped_out(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().string().ends_with(kSwappedOutSuffix)) found.push_back(entry.path());
  }
  for (const fs::path& old : found) {
    const std::string name = old.string();
    const fs::path place = name.substr(0, name.size() - kSwappedOutSuffix.size());
    if (fs::exists(place)) continue;  // it has its successor
    fs::rename(old, place, error);
    if (error) fail("put back", place, error);
    sync_folder(folder);
  }
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), temporary_(neighbour(path_)) {
  make_folder(parent_of(path_));
  const fs::file_status there = fs::status(path_);
  if (fs::is_directory(there)) throw_file_error("write", path_.string(), EISDIR);
  if (fs::exists(there) && !fs::is_regular_file(there)) {  // /dev/stdout would be replaced by a file
    throw UserError(
        Mistake{path_.string(), "a file, or nothing yet", "a device or a pipe", "write to a file"});
  }
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_file_error("write", path_.string(), errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t num_bytes) {
  MOTLEY_CHECK(fd_ >= 0, "written after commit: ", path_.string());
  write_all(fd_, data, num_bytes, path_);
}

void AtomicFile::commit() {
  MOTLEY_CHECK(fd_ >= 0, "committed twice: ", path_.string());
  if (::fsync(fd_) != 0) throw_file_error("write", path_.string(), errno);
  const int fd = fd_;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw_file_error("write", path_.string(), errno);
  fd_ = -1;
  if (::close(fd) != 0) throw_file_error("write", path_.string(), errno);
  sync_folder(parent_of(path_));
}

void write_file_atomic(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

AtomicFolder::AtomicFolder(fs::path destination) : destination_(std::move(destination)) {
  // "runs/a/" and "runs/a" are the same folder.
  if (!destination_.has_filename() && destination_.has_parent_path())
    destination_ = destination_.parent_path();
  temporary_ = neighbour(destination_);
  make_folder(parent_of(destination_));
  std::error_code error;
  if (fs::exists(destination_, error) && !fs::is_directory(destination_, error)) {
    throw_file_error("make the folder", destination_.string(), ENOTDIR);
  }
  restore_swapped_out(parent_of(destination_));
  remove_tree(temporary_);
  make_folder(temporary_);
}

AtomicFolder::~AtomicFolder() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
  MOTLEY_CHECK(!committed_, "committed twice: ", destination_.string());
  sync_tree(temporary_);
  if (fs::exists(destination_)) {
    // One step where the file system can, so that there is a whole folder of this name at every moment.
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, destination_.c_str(), RENAME_EXCHANGE) != 0) {
      if (errno != EINVAL && errno != ENOSYS) throw_file_error("replace", destination_.string(), errno);
      const fs::path old = destination_.string() + std::string(kSwappedOutSuffix);
      remove_tree(old);
      if (::rename(destination_.c_str(), old.c_str()) != 0) {
        throw_file_error("replace", destination_.string(), errno);
      }
      if (::rename(temporary_.c_str(), destination_.c_str()) != 0) {
        const int error = errno;
        ::rename(old.c_str(), destination_.c_str());
        throw_file_error("replace", destination_.string(), error);
      }
      temporary_ = old;
    }
    committed_ = true;
    sync_folder(parent_of(destination_));
    remove_tree(temporary_);
    return;
  }
  if (::rename(temporary_.c_str(), destination_.c_str()) != 0) {
    throw_file_error("write", destination_.string(), errno);
  }
  committed_ = true;
  sync_folder(parent_of(destination_));
}

bool is_unfinished(const fs::path& path) { return path.filename().string().ends_with(kUnfinishedSuffix); }

}  // namespace motley
