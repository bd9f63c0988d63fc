#include "motley/text/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "tests/text/text_folder.h"

namespace motley {
namespace {

TEST(ByteTokenizer, RoundTripsEveryByte) {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  const ByteTokenizer tokenizer;
  const auto ids = tokenizer.encode(text);
  EXPECT_EQ(ids.front(), 0);
  EXPECT_EQ(ids.back(), 255);
  EXPECT_EQ(tokenizer.decode(ids), text);
}

TEST(ByteTokenizer, RefusesIdsOutside) {
  EXPECT_THROW(ByteTokenizer().decode({256}), UserError);
  EXPECT_THROW(ByteTokenizer().decode({-1}), UserError);
}

TEST(MakeTokenizer, NamesWhatItKnows) {
  EXPECT_EQ(make_tokenizer("bytes")->vocab_size(), 256);
  try {
    make_tokenizer("byte");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("\"bytes\""), std::string::npos);
  }
}

TEST(TokenizerFile, RoundTrips) {
  const TextFolder folder;
  write_tokenizer(ByteTokenizer(), folder.path());
  EXPECT_EQ(read_tokenizer(folder.path())->name(), "bytes");
  // The characters that stand for a space and a newline in every byte-level BPE.
  const auto vocabulary = read_json_file((folder.path() / "tokenizer.json").string())["model"]["vocab"];
  EXPECT_EQ(vocabulary.at("\u0120"), 32);
  EXPECT_EQ(vocabulary.at("\u010a"), 10);
  EXPECT_EQ(vocabulary.at("a"), 97);
  EXPECT_EQ(vocabulary.size(), 256u);
}

TEST(TokenizerFile, RefusesOtherKindsAndMissingFiles) {
  const TextFolder folder;
  const std::string missing = user_error([&] { read_tokenizer(folder.path()); });
  EXPECT_NE(missing.find("expected a tokenizer, found no such file; use --tokens"), std::string::npos);
  folder.write("tokenizer.json", R"({"model": {"type": "Unigram", "vocab": []}})");
  EXPECT_THROW(read_tokenizer(folder.path()), UserError);
  folder.write("tokenizer.json", "[1]");
  EXPECT_THROW(read_tokenizer(folder.path()), UserError);
}

}  // namespace
}  // namespace motley
