#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "motley/nn/attention.h"

namespace motley {
namespace {

// [.., H_kv, hd] -> [.., H, hd]: each head repeated for its group of queries.
at::Tensor repeat_heads(const at::Tensor& x, int64_t num_heads) {
  const int64_t kv_heads = x.size(-2), group = num_heads / kv_heads;
  if (group == 1) return x;
  auto shape = x.sizes().vec();
  shape.insert(shape.end() - 1, group);
  auto expanded = x.unsqueeze(-2).expand(shape);
  shape.erase(shape.end() - 2);
  shape[shape.size() - 2] = num_heads;
  return expanded.reshape(shape);
}

// q [B, L, H, hd] and k, v [B, L, H_kv, hd] of fresh sequences -> [B, L, H, hd].
at::Tensor whole_sequences(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t heads = q.size(2);
  return at::scaled_dot_product_attention(q.transpose(1, 2), repeat_heads(k, heads).transpose(1, 2),
                                          repeat_heads(v, heads).transpose(1, 2), {}, 0.0, /*is_causal=*/true)
      .transpose(1, 2);
}

// One new token q [1, H, hd] over k, v [N, H_kv, hd]: the queries of a group are rows of one product, so
// that no head is copied.
at::Tensor one_token(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t heads = q.size(1), kv_heads = k.size(1), head_dim = q.size(2);
  const auto grouped = q.view({1, kv_heads, heads / kv_heads, head_dim});
  return at::scaled_dot_product_attention(grouped, k.transpose(0, 1).unsqueeze(0),
                                          v.transpose(0, 1).unsqueeze(0))
      .reshape({1, heads, head_dim});
}

// Several new tokens q [L, H, hd] after N - L cached ones, k and v [N, H_kv, hd].
at::Tensor continued(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t length = q.size(0), total = k.size(0), heads = q.size(1);
  const auto query = at::arange(total - length, total).unsqueeze(1);
  const auto mask = at::ge(query, at::arange(total).unsqueeze(0));
  return at::scaled_dot_product_attention(q.transpose(0, 1).unsqueeze(0),
                                          repeat_heads(k, heads).transpose(0, 1).unsqueeze(0),
                                          repeat_heads(v, heads).transpose(0, 1).unsqueeze(0), mask)
      .squeeze(0)
      .transpose(0, 1);
}

at::Tensor cached_sequence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const CacheView& view, int64_t id) {
  const int64_t before = view.cache->length(id), length = q.size(0);
  view.cache->append(view.layer, id, k, v);
  if (before == 0 && length > 1) {
    return whole_sequences(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0)).squeeze(0);
  }
  const auto [keys, values] = view.cache->read(view.layer, id, before + length);
  return length == 1 ? one_token(q, keys, values) : continued(q, keys, values);
}

// The common length of all sequences, or -1.
int64_t equal_length(const PackedBatch& batch) {
  const auto& offset = batch.sequence_offset;
  const int64_t length = offset[1] - offset[0];
  for (size_t i = 1; i + 1 < offset.size(); ++i) {
    if (offset[i + 1] - offset[i] != length) return -1;
  }
  return length;
}

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedBatch& batch,
           const CacheView& view) {
  TORCH_CHECK(
      q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && k.size(0) == q.size(0) &&
          k.size(2) == q.size(2) && k.size(1) > 0 && q.size(1) % k.size(1) == 0,
      "[packed_attention] expected q [T, H, hd] and k, v [T, H_kv, hd] with H a multiple of H_kv, got ",
      q.sizes(), ", ", k.sizes(), ", ", v.sizes());
  TORCH_CHECK(batch.num_sequences() > 0 && batch.sequence_offset.front() == 0 &&
                  batch.sequence_offset.back() == q.size(0),
              "[packed_attention] expected sequence_offset from 0 to ", q.size(0), ", got ",
              batch.sequence_offset);
  TORCH_CHECK(view.cache == nullptr || static_cast<int64_t>(view.sequences->size()) == batch.num_sequences(),
              "[packed_attention] expected a cache sequence for each of ", batch.num_sequences(), ", got ",
              view.cache == nullptr ? 0 : view.sequences->size());
}

}  // namespace

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const PackedBatch& batch, const CacheView& view) {
  check(q, k, v, batch, view);
  const int64_t sequences = batch.num_sequences(), tokens = q.size(0);
  if (tokens == 0) return q;
  if (view.cache == nullptr) {
    if (const int64_t length = equal_length(batch); length > 0) {
      const auto by_sequence = [&](const at::Tensor& x) {
        return x.view({sequences, length, x.size(1), x.size(2)});
      };
      return whole_sequences(by_sequence(q), by_sequence(k), by_sequence(v)).reshape(q.sizes());
    }
  }
  std::vector<at::Tensor> outputs;
  outputs.reserve(sequences);
  for (int64_t b = 0; b < sequences; ++b) {
    const int64_t begin = batch.sequence_offset[b], length = batch.sequence_offset[b + 1] - begin;
    if (length == 0) continue;
    const auto rows = [&](const at::Tensor& x) { return x.narrow(0, begin, length); };
    if (view.cache != nullptr) {
      outputs.push_back(cached_sequence(rows(q), rows(k), rows(v), view, (*view.sequences)[b]));
    } else {
      outputs.push_back(
          whole_sequences(rows(q).unsqueeze(0), rows(k).unsqueeze(0), rows(v).unsqueeze(0)).squeeze(0));
    }
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs);
}

}  // namespace motley
