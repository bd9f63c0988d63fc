// Files and folders that appear whole or not at all: written beside their place, synced, renamed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace motley {

// One file. Bytes go to a temporary neighbour; commit() syncs it, renames it over `path` and syncs the
// folder. Without commit the destructor removes it and `path` stays as it was.
// Every failure is a UserError with the path and the reason (disk full, no permission, a device there, ...).
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);  // makes missing parent folders
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t num_bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

void write_file_atomic(const std::filesystem::path& path, std::string_view content);

// A whole folder. Files are made under path(); commit() syncs all of them, renames the folder to its
// place (an old folder of that name is swapped out, then removed) and syncs the parent.
// Left-overs of a process that died are removed by the next AtomicFolder of the same name; where the file
// system cannot exchange two names, an old folder that it left without a successor is put back first.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::filesystem::path destination);  // makes missing parent folders
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::filesystem::path& path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path destination_, temporary_;
  bool committed_ = false;
};

// Makes a folder and its missing parents, all of them synced into theirs. True when `path` is new: of several
// processes that make the same folder, one is told so.
bool make_folder(const std::filesystem::path& path);

// Makes nothing. Throws UserError where this process may not write into the folder or, if it is missing, into
// the nearest folder above it.
void check_folder(const std::filesystem::path& path);

// Writes all bytes to an open file; `path` is for the error.
void write_all(int fd, const void* data, size_t num_bytes, const std::filesystem::path& path);

// Puts back what AtomicFolder::commit() had moved aside when its process died between two renames, on file
// systems that cannot exchange two names. Call it before unfinished work is removed from `folder`.
void restore_swapped_out(const std::filesystem::path& folder);

// Makes the entries of a folder last: a file just made in it, a renamed one.
void sync_folder(const std::filesystem::path& path);

// Whether a name is one that AtomicFile or AtomicFolder gives to unfinished work; listings pass it over.
bool is_unfinished(const std::filesystem::path& path);

}  // namespace motley
