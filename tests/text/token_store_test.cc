#include "motley/text/token_store.h"

#include <gtest/gtest.h>

#include "tests/text/text_folder.h"

namespace motley {
namespace {

TEST(TokenStore, KeepsTokensInAsFewBytesAsTheVocabularyAllows) {
  const std::vector<int64_t> ids = {0, 1, 200, 255};
  for (const auto& [vocab_size, width] :
       {std::pair<int64_t, int>{256, 1}, {257, 2}, {65536, 2}, {65537, 4}}) {
    TokenStore store(vocab_size);
    store.append(ids);
    store.append({static_cast<int64_t>(vocab_size) - 1});
    EXPECT_EQ(store.width(), width);
    ASSERT_EQ(store.size(), 5);
    std::vector<int64_t> read(3);
    store.copy(2, 3, read.data());
    EXPECT_EQ(read, (std::vector<int64_t>{200, 255, vocab_size - 1}));
  }
}

TEST(TokenStore, RefusesTokensOutsideTheVocabularyAndReadsPastTheEnd) {
  TokenStore store(10);
  EXPECT_ANY_THROW(store.append({10}));
  int64_t out = 0;
  EXPECT_ANY_THROW(store.copy(store.size(), 1, &out));
}

TEST(TokenStore, ChecksumDependsOnContentAndNotOnPieces) {
  TokenStore whole(256), pieces(256), other(256);
  whole.append({1, 2, 3, 4});
  pieces.append({1});
  pieces.append({2, 3, 4});
  other.append({1, 2, 4, 3});
  EXPECT_EQ(whole.checksum(), pieces.checksum());
  EXPECT_NE(whole.checksum(), other.checksum());
}

TEST(TokenStore, TokenisesASource) {
  const TextFolder folder;
  folder.write("a", "hé");
  folder.write("b", "!");
  const auto [store, num_bytes] = tokenize(TextSource(folder.path()), ByteTokenizer());
  EXPECT_EQ(num_bytes, 4u);
  EXPECT_EQ(store.highest(), 0xc3);
  std::vector<int64_t> ids(4);
  ASSERT_EQ(store.size(), 4);
  store.copy(0, 4, ids.data());
  EXPECT_EQ(ids, (std::vector<int64_t>{'h', 0xc3, 0xa9, '!'}));
}

TEST(SplitTokens, ValidatesOnTheLastPart) {
  const TokenSplit split = split_tokens(1005, 0.1);
  EXPECT_EQ(split.train_begin, 0);
  EXPECT_EQ(split.train_end, 905);
  EXPECT_EQ(split.validation_begin, 905);
  EXPECT_EQ(split.num_validation(), 100);
  EXPECT_EQ(split_tokens(10, 0.0).num_validation(), 0);
}

}  // namespace
}  // namespace motley
