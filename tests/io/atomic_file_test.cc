#include "motley/io/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>

#include "tests/io/temporary_folder.h"

namespace motley {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

size_t num_entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

TEST(AtomicFile, AppearsOnlyWithCommit) {
  TemporaryFolder folder;
  write_file_atomic(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new");
    EXPECT_EQ(content(folder / "a"), "old");
    file.commit();
    EXPECT_EQ(content(folder / "a"), "new");
  }
  EXPECT_EQ(num_entries(folder.path()), 1u);
}

TEST(AtomicFile, LeavesNothingWithoutCommit) {
  TemporaryFolder folder;
  { AtomicFile(folder / "a").write("x"); }
  EXPECT_EQ(num_entries(folder.path()), 0u);
}

TEST(AtomicFile, MakesParentFolders) {
  TemporaryFolder folder;
  write_file_atomic(folder.path() / "b" / "c" / "a", "x");
  EXPECT_EQ(content(folder.path() / "b" / "c" / "a"), "x");
}

TEST(AtomicFile, NamesThePathWhenItCannotWrite) {
  TemporaryFolder folder;
  write_file_atomic(folder / "file", "x");
  // A file where a folder is needed fails for root too, unlike missing permission.
  EXPECT_THAT(user_error([&] { write_file_atomic(folder.path() / "file" / "a", "x"); }),
              HasSubstr((folder / "file").string()));
  fs::create_directory(folder / "dir");
  EXPECT_THAT(user_error([&] { write_file_atomic(folder / "dir", "x"); }),
              HasSubstr((folder / "dir").string()));
}

// The rename would put a file in the place of /dev/full, or of a pipe that somebody reads.
TEST(AtomicFile, LeavesDevicesAndPipesAlone) {
  TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(user_error([&] { write_file_atomic(folder / "pipe", "x"); }), HasSubstr("a device or a pipe"));
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
  EXPECT_EQ(num_entries(folder.path()), 1u);
}

TEST(AtomicFile, FullDiskIsOneClearError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  TemporaryFolder folder;
  // The temporary neighbour of "a" leads to a device that is always full.
  fs::create_symlink("/dev/full", folder / "a.unfinished");
  const std::string message = user_error([&] { write_file_atomic(folder / "a", std::string(1 << 20, 'x')); });
  EXPECT_THAT(message, HasSubstr((folder / "a").string()));
  EXPECT_THAT(message, HasSubstr("No space left"));
  EXPECT_FALSE(fs::exists(folder / "a"));
}

TEST(AtomicFolder, AppearsWholeAndReplacesTheOldOne) {
  TemporaryFolder parent;
  for (const std::string text : {"first", "second"}) {
    AtomicFolder folder(parent / "step_10");
    write_file_atomic(folder.path() / text, text);
    EXPECT_TRUE(is_unfinished(folder.path()));
    folder.commit();
    EXPECT_EQ(content(parent.path() / "step_10" / text), text);
  }
  EXPECT_FALSE(fs::exists(parent.path() / "step_10" / "first"));
  EXPECT_EQ(num_entries(parent.path()), 1u);
  EXPECT_FALSE(is_unfinished(parent / "step_10"));
}

TEST(AtomicFolder, LeavesTheOldOneWithoutCommit) {
  TemporaryFolder parent;
  write_file_atomic(parent.path() / "m" / "a", "old");
  {
    AtomicFolder folder(parent.path() / "m");
    write_file_atomic(folder.path() / "a", "new");
  }
  EXPECT_EQ(content(parent.path() / "m" / "a"), "old");
  EXPECT_EQ(num_entries(parent.path()), 1u);
}

TEST(AtomicFolder, RemovesLeftOversOfTheSameName) {
  TemporaryFolder parent;
  write_file_atomic(parent.path() / "m.unfinished" / "stale", "x");
  AtomicFolder folder(parent.path() / "m/");
  folder.commit();
  EXPECT_EQ(num_entries(parent.path() / "m"), 0u);
  EXPECT_EQ(num_entries(parent.path()), 1u);
}

// A process that died between moving the old folder aside and putting the new one in its place.
TEST(AtomicFolder, PutsBackAnOldFolderWithoutSuccessor) {
  TemporaryFolder parent;
  write_file_atomic(parent.path() / "m.old.unfinished" / "a", "old");
  write_file_atomic(parent.path() / "m.unfinished" / "a", "new");
  write_file_atomic(parent.path() / "n.old.unfinished" / "a", "old");
  write_file_atomic(parent.path() / "n" / "a", "new");
  restore_swapped_out(parent.path());
  EXPECT_EQ(content(parent.path() / "m" / "a"), "old");
  EXPECT_EQ(content(parent.path() / "n" / "a"), "new");
  restore_swapped_out(parent / "missing");
  fs::rename(parent.path() / "m", parent / "m.old.unfinished");
  { AtomicFolder folder(parent / "m"); }
  EXPECT_EQ(content(parent.path() / "m" / "a"), "old");
}

TEST(MakeFolder, TellsWhetherTheFolderIsNew) {
  TemporaryFolder parent;
  EXPECT_TRUE(make_folder(parent.path() / "a" / "b"));
  EXPECT_FALSE(make_folder(parent.path() / "a" / "b"));
  EXPECT_FALSE(make_folder(parent / "a"));
}

TEST(AtomicFolder, RefusesAFileInItsPlace) {
  TemporaryFolder parent;
  write_file_atomic(parent / "m", "x");
  EXPECT_THAT(user_error([&] { AtomicFolder folder(parent / "m"); }), HasSubstr((parent / "m").string()));
  EXPECT_EQ(content(parent / "m"), "x");
}

}  // namespace
}  // namespace motley
