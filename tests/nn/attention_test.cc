#include "motley/nn/attention.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace motley {
namespace {

PackedBatch batch_of(const std::vector<int64_t>& lengths) {
  PackedBatch batch;
  batch.sequence_offset = {0};
  std::vector<at::Tensor> positions;
  for (const int64_t length : lengths) {
    batch.sequence_offset.push_back(batch.sequence_offset.back() + length);
    positions.push_back(at::arange(length, at::kLong));
  }
  batch.positions = at::cat(positions);
  batch.ids = at::zeros_like(batch.positions);
  return batch;
}

// Softmax over the tokens up to each one, written out, in the inputs' dtype.
at::Tensor reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const PackedBatch& batch) {
  const int64_t group = q.size(1) / k.size(1);
  std::vector<at::Tensor> outputs;
  for (int64_t b = 0; b < batch.num_sequences(); ++b) {
    const int64_t begin = batch.sequence_offset[b], end = batch.sequence_offset[b + 1];
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < q.size(1); ++h) {
        const auto keys = k.slice(0, begin, t + 1).select(1, h / group);
        const auto weights = at::softmax(at::mv(keys, q[t][h]) / std::sqrt(q.size(2)), 0);
        outputs.push_back(at::mv(v.slice(0, begin, t + 1).select(1, h / group).t(), weights));
      }
    }
  }
  return at::stack(outputs).view(q.sizes());
}

struct Inputs {
  at::Tensor q, k, v;
  Inputs(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t head_dim)
      : q(at::randn({tokens, heads, head_dim})),
        k(at::randn({tokens, kv_heads, head_dim})),
        v(at::randn({tokens, kv_heads, head_dim})) {}
};

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

TEST(PackedAttention, MatchesTheReferenceAndItsGradients) {
  at::manual_seed(2);
  for (const auto& lengths : {std::vector<int64_t>{7, 7, 7}, {5, 1, 9}, {12}}) {
    for (const int64_t kv_heads : {1, 2, 4}) {
      const PackedBatch batch = batch_of(lengths);
      const int64_t tokens = batch.num_tokens();
      Inputs in(tokens, 4, kv_heads, 8);
      const auto dy = at::randn({tokens, 4, 8});
      const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble).requires_grad_(); };
      const auto q64 = wide(in.q), k64 = wide(in.k), v64 = wide(in.v);
      const auto expected = reference(q64, k64, v64, batch);
      expected.backward(dy.to(at::kDouble));
      for (auto* x : {&in.q, &in.k, &in.v}) x->requires_grad_();
      const auto found = packed_attention(in.q, in.k, in.v, batch);
      found.backward(dy);
      EXPECT_LT(difference(found, expected), 1e-5);
      EXPECT_LT(difference(in.q.grad(), q64.grad()), 1e-5);
      EXPECT_LT(difference(in.k.grad(), k64.grad()), 1e-5);
      EXPECT_LT(difference(in.v.grad(), v64.grad()), 1e-5);
    }
  }
}

TEST(PackedAttention, CacheGivesTheSameHoweverTokensArrive) {
  at::manual_seed(3);
  const int64_t total = 11;
  for (const int64_t kv_heads : {2, 4}) {
    const Inputs first(total, 4, kv_heads, 8), second(total, 4, kv_heads, 8);
    const auto expected1 = packed_attention(first.q, first.k, first.v, batch_of({total}));
    const auto expected2 = packed_attention(second.q, second.k, second.v, batch_of({total}));
    // Token by token; in chunks; whole.
    for (const auto& chunks : {std::vector<int64_t>(total, 1), {4, 1, 6}, {total}}) {
      KvCache cache({1, kv_heads, 8}, at::kFloat, 8, 4);
      const std::vector<int64_t> ids = {cache.add_sequence(), cache.add_sequence()};
      int64_t done = 0;
      for (const int64_t chunk : chunks) {
        const auto both = [&](const at::Tensor& a, const at::Tensor& b) {
          return at::cat({a.narrow(0, done, chunk), b.narrow(0, done, chunk)});
        };
        const auto found =
            packed_attention(both(first.q, second.q), both(first.k, second.k), both(first.v, second.v),
                             batch_of({chunk, chunk}), {&cache, 0, &ids, {}});
        EXPECT_LT(difference(found.narrow(0, 0, chunk), expected1.narrow(0, done, chunk)), 1e-5);
        EXPECT_LT(difference(found.narrow(0, chunk, chunk), expected2.narrow(0, done, chunk)), 1e-5);
        for (const int64_t id : ids) cache.commit(id, chunk);
        done += chunk;
      }
    }
  }
}

// Groups of more queries than are multiplied at once, a head that no vector divides.
TEST(PackedAttention, OneTokenAfterManyIsTheReferenceOnAnyNumberOfThreads) {
  at::manual_seed(5);
  const int threads = at::get_num_threads();
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t kv_heads : {1, 2, 18}) {
      const Inputs in(601, 18, kv_heads, 41);
      const auto rounded = [&](const at::Tensor& x) { return x.to(type); };
      const auto q = rounded(in.q), k = rounded(in.k), v = rounded(in.v);
      const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
      const auto expected = reference(wide(q), wide(k), wide(v), batch_of({601})).narrow(0, 600, 1);
      std::vector<at::Tensor> found;
      for (const int count : {1, 3}) {
        at::set_num_threads(count);
        KvCache cache({1, kv_heads, 41}, type, 40);
        const std::vector<int64_t> ids = {cache.add_sequence()};
        for (const auto& [begin, length] : {std::pair<int64_t, int64_t>{0, 600}, {600, 1}}) {
          found.push_back(packed_attention(q.narrow(0, begin, length), k.narrow(0, begin, length),
                                           v.narrow(0, begin, length), batch_of({length}),
                                           {&cache, 0, &ids, {}}));
          cache.commit(ids[0], length);
        }
      }
      at::set_num_threads(threads);
      EXPECT_LT(difference(found[1], expected), type == at::kFloat ? 1e-6 : 2e-3) << type << ", " << kv_heads;
      EXPECT_TRUE(found[1].equal(found[3])) << type << ", " << kv_heads;
    }
  }
}

TEST(PackedAttention, BFloat16StaysNearTheReference) {
  const Inputs in(16, 4, 2, 32);
  const PackedBatch batch = batch_of({8, 8});
  const auto half = [](const at::Tensor& x) { return x.to(at::kBFloat16); };
  const auto found = packed_attention(half(in.q), half(in.k), half(in.v), batch);
  EXPECT_EQ(found.scalar_type(), at::kBFloat16);
  EXPECT_LT(difference(found, reference(in.q, in.k, in.v, batch)), 0.05);
}

TEST(PackedAttention, RefusesWhatDoesNotFit) {
  const Inputs in(6, 4, 3, 8);
  EXPECT_THROW(packed_attention(in.q, in.k, in.v, batch_of({6})), c10::Error);
  const Inputs fits(6, 4, 2, 8);
  EXPECT_THROW(packed_attention(fits.q, fits.k, fits.v, batch_of({5})), c10::Error);
  EXPECT_EQ(
      packed_attention(fits.q.narrow(0, 0, 0), fits.k.narrow(0, 0, 0), fits.v.narrow(0, 0, 0), batch_of({0}))
          .numel(),
      0);
}

TEST(Attention, ProjectsAndNamesItsParameters) {
  Attention attention({.hidden_size = 12, .num_heads = 4, .num_kv_heads = 2, .head_dim = 6}, at::kFloat);
  std::vector<std::string> names;
  std::vector<at::Tensor> weights;
  attention.visit("a.", [&](const std::string& name, at::Tensor& tensor, TensorRole role) {
    EXPECT_EQ(role, TensorRole::kParameter);
    tensor.normal_();
    names.push_back(name);
    weights.push_back(tensor);
  });
  EXPECT_EQ(names, (std::vector<std::string>{"a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight",
                                             "a.o_proj.weight"}));
  const auto x = at::randn({5, 12});
  const PackedBatch batch = batch_of({5});
  const RotaryTable table(8, 6, 10000.0);
  const auto heads = [&](int i, int64_t count) { return at::linear(x, weights[i]).view({5, count, 6}); };
  const auto expected = at::linear(reference(table.rotate(heads(0, 4), batch.positions),
                                             table.rotate(heads(1, 2), batch.positions), heads(2, 2), batch)
                                       .reshape({5, 24}),
                                   weights[3]);
  EXPECT_LT(difference(attention.forward(x, batch, table, {}), expected), 1e-3);
  EXPECT_THROW(Attention({.hidden_size = 12, .num_heads = 4, .num_kv_heads = 3, .head_dim = 6}, at::kFloat),
               c10::Error);
}

}  // namespace
}  // namespace motley
