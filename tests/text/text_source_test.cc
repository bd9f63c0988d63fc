#include "motley/text/text_source.h"

#include <gtest/gtest.h>

#include "motley/base/error.h"
#include "tests/text/text_folder.h"

namespace motley {
namespace {

std::string read_all(const TextSource& source) {
  std::string text;
  const uint64_t size = source.read([&](std::string_view piece) { text += piece; });
  EXPECT_EQ(size, text.size());
  return text;
}

TEST(TextSource, ReadsAPlainAndAGzippedFile) {
  const TextFolder folder;
  const std::string text(1'000'003, 'a');  // several pieces
  EXPECT_EQ(read_all(TextSource(folder.write("a.txt", text))), text);
  EXPECT_EQ(read_all(TextSource(folder.write_gzip("a.txt.gz", text + "end"))), text + "end");
}

TEST(TextSource, TakesAFolderInTheByteOrderOfPaths) {
  const TextFolder folder;
  folder.write("b.txt", "3");
  folder.write("B.txt", "1");
  folder.write("a/z.md", "2");
  folder.write("c/a", "4");
  folder.write(".hidden", "no");
  folder.write(".git/config", "no");
  folder.write("empty", "");
  folder.write("image.png", std::string("\x89PNG\0\0", 6));
  const TextSource source(folder.path());
  EXPECT_EQ(read_all(source), "1234");
  EXPECT_EQ(source.skipped().size(), 2u);
}

TEST(TextSource, NamesAMissingPath) {
  EXPECT_NE(user_error([] { TextSource("/no/such/text"); }).find("/no/such/text"), std::string::npos);
}

TEST(TextSource, RefusesAPathWithoutText) {
  const TextFolder folder;
  EXPECT_NE(user_error([&] { TextSource(folder.path()); }).find("no files"), std::string::npos);
  const auto empty = folder.write("sub/empty.txt", "");
  EXPECT_NE(user_error([&] { TextSource(folder.path() / "sub"); }).find("none among its 1 files"),
            std::string::npos);
  EXPECT_NE(user_error([&] { TextSource source(empty); }).find("empty file"), std::string::npos);
  const auto binary = folder.write("x.bin", std::string("ab\0c", 4));
  EXPECT_NE(user_error([&] { TextSource source(binary); }).find("zero bytes"), std::string::npos);
}

TEST(TextSource, RefusesATruncatedGzipFile) {
  const TextFolder folder;
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += std::to_string(i * 7919 % 100003);
  const auto path = folder.write_gzip("a.gz", text);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  const std::string error = user_error([&] { read_all(TextSource(path)); });
  EXPECT_NE(error.find("ends too early"), std::string::npos) << error;
  EXPECT_NE(error.find("a.gz"), std::string::npos) << error;
}

TEST(TextSource, RefusesAPlainFileNamedGz) {
  const TextFolder folder;
  const auto path = folder.write("a.gz", "plain text");
  EXPECT_NE(user_error([&] { read_all(TextSource(path)); }).find("gzip data"), std::string::npos);
}

TEST(TextSource, NamesTheOffsetOfALateZeroByte) {
  const TextFolder folder;
  const auto path = folder.write("late.txt", std::string(300'000, 'a') + '\0');
  const TextSource source(path);
  EXPECT_NE(user_error([&] { read_all(source); }).find("300000"), std::string::npos);
}

}  // namespace
}  // namespace motley
