#include "motley/text/text_source.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "motley/base/error.h"

namespace motley {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = size_t{1} << 18;
constexpr size_t kSniffBytes = size_t{1} << 16;  // a file is judged by this much of its beginning

// Reads a plain or gzipped file piece by piece.
class Reader {
 public:
  explicit Reader(const fs::path& path) : path_(path), compressed_(path.extension() == ".gz") {
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) throw_file_error("read", path.string(), errno);
    if (!compressed_) return;
    gz_ = gzdopen(fd_, "rb");
    MOTLEY_CHECK(gz_ != nullptr, "zlib has no memory for a reader");
    gzbuffer(gz_, kPieceBytes);
  }
  ~Reader() {
    if (gz_ != nullptr) {
      gzclose_r(gz_);
    } else {
      ::close(fd_);
    }
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // Fills `buffer` as far as the file goes; 0 at its end.
  size_t read(char* buffer, size_t size) {
    size_t filled = 0;
    while (filled < size) {
      const auto got = compressed_ ? gzread(gz_, buffer + filled, static_cast<unsigned>(size - filled))
                                   : ::read(fd_, buffer + filled, size - filled);
      if (got < 0 && !compressed_ && errno == EINTR) continue;
      if (got < 0) fail();
      if (got == 0) break;
      filled += static_cast<size_t>(got);
    }
    if (compressed_) check_gzip(filled < size);
    return filled;
  }

 private:
  void check_gzip(bool at_end) {
    if (gzdirect(gz_) != 0 && gzoffset(gz_) > 0) {
      throw UserError(Mistake{path_.string(), "gzip data, as the name says", "something else", ""});
    }
    // A file that stops in the middle of its data shows only here.
    int code = Z_OK;
    gzerror(gz_, &code);
    if (at_end && code != Z_OK && code != Z_STREAM_END) fail();
  }
  [[noreturn]] void fail() {
    const int read_error = errno;
    if (!compressed_) throw_file_error("read", path_.string(), read_error);
    int code = Z_OK;
    gzerror(gz_, &code);
    if (code == Z_ERRNO) throw_file_error("read", path_.string(), read_error);
    throw UserError(Mistake{path_.string(), "a whole gzip file",
                            code == Z_BUF_ERROR ? "one that ends too early" : "damaged data",
                            "fetch the file again"});
  }

  fs::path path_;
  bool compressed_;
  int fd_ = -1;
  gzFile gz_ = nullptr;
};

bool has_zero_byte(std::string_view piece) { return piece.find('\0') != std::string_view::npos; }

enum class Content { kText, kEmpty, kOther };

Content look_at(const fs::path& file) {
  std::string start(kSniffBytes, '\0');
  start.resize(Reader(file).read(start.data(), start.size()));
  if (start.empty()) return Content::kEmpty;
  return has_zero_byte(start) ? Content::kOther : Content::kText;
}

void list_files(const fs::path& folder, std::vector<fs::path>& files) {
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error) throw_file_error("list", folder.string(), error.value());
  for (const auto& entry : entries) {
    if (entry.path().filename().string().starts_with('.')) continue;
    if (entry.is_directory(error) && !entry.is_symlink(error)) {
      list_files(entry.path(), files);
    } else if (entry.is_regular_file(error)) {  // through a link too
      files.push_back(entry.path());
    }
  }
}

}  // namespace

TextSource::TextSource(const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) throw_file_error("read", path.string(), error ? error.value() : ENOENT);
  if (!fs::is_directory(status)) {
    if (!fs::is_regular_file(status)) {
      throw UserError(Mistake{path.string(), "a file or a folder", "a device or a pipe",
                              "a run reads its text again when it goes on: write it to a file first"});
    }
    const Content content = look_at(path);
    if (content != Content::kText) {
      throw UserError(Mistake{path.string(), "text, or gzipped text in a file named *.gz",
                              content == Content::kEmpty ? "an empty file" : "zero bytes, as in binary files",
                              ""});
    }
    files_.push_back(path);
    return;
  }
  std::vector<fs::path> found;
  list_files(path, found);
  std::sort(found.begin(), found.end(),
            [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  for (auto& file : found) {
    (look_at(file) == Content::kText ? files_ : skipped_).push_back(std::move(file));
  }
  if (files_.empty()) {
    throw UserError(Mistake{
        path.string(), "a folder with text files",
        found.empty() ? std::string("no files at all") : concat("none among its ", found.size(), " files"),
        ""});
  }
}

uint64_t TextSource::read(const std::function<void(std::string_view)>& sink) const {
  uint64_t total = 0;
  const auto buffer = std::make_unique<char[]>(kPieceBytes);
  for (const auto& file : files_) {
    Reader reader(file);
    uint64_t in_file = 0;
    while (const size_t size = reader.read(buffer.get(), kPieceBytes)) {
      const std::string_view piece(buffer.get(), size);
      const size_t zero = piece.find('\0');
      if (zero != std::string_view::npos) {
        throw UserError(
            Mistake{file.string(), "text", concat("a zero byte at offset ", in_file + zero), "leave it out"});
      }
      sink(piece);
      in_file += size;
    }
    total += in_file;
  }
  return total;
}

}  // namespace motley
