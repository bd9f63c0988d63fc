#include "motley/nn/kv_cache.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

namespace motley {
namespace {

at::Tensor token(double value) { return at::full({1, 2, 3}, value); }

TEST(KvCache, ReadsBackWhatWasAppendedAcrossBlocks) {
  KvCache cache({2, 2, 3}, at::kFloat, 8, 4);
  const int64_t id = cache.add_sequence();
  const auto keys = at::randn({10, 2, 3}), values = at::randn({10, 2, 3});
  for (int64_t layer : {0, 1}) cache.append(layer, id, keys.narrow(0, 0, 7), values.narrow(0, 0, 7));
  EXPECT_EQ(cache.length(id), 0);
  cache.commit(id, 7);
  for (int64_t layer : {0, 1}) cache.append(layer, id, keys.narrow(0, 7, 3), values.narrow(0, 7, 3));
  cache.commit(id, 3);
  EXPECT_EQ(cache.length(id), 10);
  for (int64_t layer : {0, 1}) {
    const auto [k, v] = cache.read(layer, id, 10);
    EXPECT_TRUE(at::equal(k, keys));
    EXPECT_TRUE(at::equal(v, values));
  }
}

TEST(KvCache, SequencesGrowInTurnAndStayApart) {
  KvCache cache({1, 2, 3}, at::kFloat, 8, 2);
  const int64_t a = cache.add_sequence(), b = cache.add_sequence();
  for (int i = 0; i < 8; ++i) {  // blocks of a and b alternate, so that read() has to gather
    for (const auto& [id, value] : {std::pair{a, i}, std::pair{b, 100 + i}}) {
      cache.append(0, id, token(value), token(-value));
      cache.commit(id, 1);
    }
  }
  EXPECT_EQ(cache.num_free_blocks(), 0);
  const auto [k, v] = cache.read(0, b, 8);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(k[i][0][0].item<float>(), 100 + i);
    EXPECT_EQ(v[i][1][2].item<float>(), -(100 + i));
  }
}

TEST(KvCache, GivesBlocksBackAndKeepsReservationsTogether) {
  KvCache cache({1, 2, 3}, at::kFloat, 6, 2);
  const int64_t a = cache.add_sequence();
  cache.reserve(a, 4);
  const int64_t b = cache.add_sequence();
  cache.reserve(b, 4);
  EXPECT_EQ(cache.num_free_blocks(), 2);
  cache.remove_sequence(a);
  EXPECT_EQ(cache.num_free_blocks(), 4);
  // Free are 0, 1 and 4, 5: no run of three, so the blocks are gathered on reading.
  const int64_t c = cache.add_sequence();
  EXPECT_EQ(c, a);
  const auto keys = at::randn({6, 2, 3});
  cache.append(0, c, keys, keys);
  EXPECT_TRUE(at::equal(cache.read(0, c, 6).first, keys));
  EXPECT_TRUE(at::equal(cache.read(0, c, 3).first, keys.narrow(0, 0, 3)));
}

TEST(KvCache, ReadsConsecutiveBlocksWithoutCopy) {
  KvCache cache({1, 2, 3}, at::kFloat, 6, 2);
  const int64_t a = cache.add_sequence();
  cache.append(0, a, at::zeros({5, 2, 3}), at::zeros({5, 2, 3}));
  EXPECT_EQ(cache.read(0, a, 5).first.data_ptr(), cache.read(0, a, 1).first.data_ptr());
}

TEST(KvCache, RefusesMisuse) {
  EXPECT_THROW(KvCache({0, 2, 3}, at::kFloat, 6), c10::Error);
  KvCache cache({1, 2, 3}, at::kFloat, 2, 2);
  const int64_t a = cache.add_sequence();
  EXPECT_THROW(cache.reserve(a, 5), c10::Error);
  EXPECT_EQ(cache.num_free_blocks(), 2);
  EXPECT_THROW(cache.length(7), c10::Error);
  EXPECT_THROW(cache.append(0, a, at::zeros({1, 1, 3}), at::zeros({1, 1, 3})), c10::Error);
  EXPECT_THROW(cache.append(1, a, token(0), token(0)), c10::Error);
  EXPECT_THROW(cache.commit(a, 1), c10::Error);
  cache.remove_sequence(a);
  EXPECT_THROW(cache.read(0, a, 0), c10::Error);
}

}  // namespace
}  // namespace motley
