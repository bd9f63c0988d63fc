#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <cmath>

#include "motley/nn/attention.h"
#include "motley/nn/causal_attention.h"
#include "motley/nn/gpu.h"
#include "motley/nn/row_math.h"

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

bool takes_dot_products(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto in_rows = [](const at::Tensor& x) { return x.stride(2) == 1 && x.stride(1) == x.size(2); };
  return nn_detail::inference_takes({&q, &k, &v}) && q.is_contiguous() && in_rows(k) && in_rows(v);
}

// Scores to softmax(scale * scores), in place.
void softmax(float* scores, int64_t count, float scale) {
  const float most = *std::max_element(scores, scores + count);
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += scores[i] = std::exp(scale * (scores[i] - most));
  for (int64_t i = 0; i < count; ++i) scores[i] /= sum;
}

// One new token q [1, H, hd] over k, v [N, H_kv, hd] on a CPU: each key and value is read once for a group's
// queries; sums in fp32, with the same bits for any number of threads. torch's attention takes MKL's product
// of bf16 for one row, a scalar loop on processors that MKL does not know.
at::Tensor dot_products(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto type = nn_detail::row_type("packed_attention", q);
  const auto& cpu = kernels::cpu_kernels();
  const int64_t kv_heads = k.size(1), group = q.size(1) / kv_heads, head_dim = q.size(2), total = k.size(0);
  const float scale = 1 / std::sqrt(static_cast<float>(head_dim));
  at::Tensor out = at::empty_like(q);
  void* const to = out.mutable_data_ptr();
  const int64_t grain = nn_detail::pieces_for_a_thread(total * head_dim * kernels::size_of(type));
  at::parallel_for(0, kv_heads, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(kernels::kMostDotRows * total);
    std::vector<const void*> values(total);
    for (int64_t head = begin; head < end; ++head) {
      const void* const keys = kernels::offset(k.const_data_ptr(), type, head * head_dim);
      for (int64_t n = 0; n < total; ++n)
        values[n] = kernels::offset(v.const_data_ptr(), type, n * v.stride(0) + head * head_dim);
      for (int64_t first = head * group; first < (head + 1) * group; first += kernels::kMostDotRows) {
        const int64_t count = std::min<int64_t>(kernels::kMostDotRows, (head + 1) * group - first);
        const void* queries[kernels::kMostDotRows];
        for (int64_t i = 0; i < count; ++i)
          queries[i] = kernels::offset(q.const_data_ptr(), type, (first + i) * head_dim);
        cpu.dot_rows(type, queries, static_cast<int>(count),
                     {keys, k.stride(0), total, head_dim, scores.data(), total});
        for (int64_t i = 0; i < count; ++i) {
          softmax(&scores[i * total], total, scale);
          cpu.weighted_sum(type, values.data(), &scores[i * total], total, 0, head_dim, type,
                           kernels::offset(to, type, (first + i) * head_dim), false);
        }
      }
    }
  });
  return out;
}

// The same by torch: the queries of a group are rows of one product, so that no head is copied.
at::Tensor one_token(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  if (takes_dot_products(q, k, v)) return dot_products(q, k, v);
  const int64_t heads = q.size(1), kv_heads = k.size(1), head_dim = q.size(2);
  const auto grouped = q.view({1, kv_heads, heads / kv_heads, head_dim});
  return at::scaled_dot_product_attention(grouped, k.transpose(0, 1).unsqueeze(0),
                                          v.transpose(0, 1).unsqueeze(0))
      .reshape({1, heads, head_dim});
}

// Several new tokens q [L, H, hd] after N - L cached ones, k and v [N, H_kv, hd].
at::Tensor continued(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t length = q.size(0), total = k.size(0), heads = q.size(1);
  const auto options = at::TensorOptions().dtype(at::kLong).device(q.device());
  const auto query = at::arange(total - length, total, options).unsqueeze(1);
  const auto mask = at::ge(query, at::arange(total, options).unsqueeze(0));
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
    return causal_attention(q, k, v, {0, length});
  }
  const auto [keys, values] = view.cache->read(view.layer, id, before + length);
  return length == 1 ? one_token(q, keys, values) : continued(q, keys, values);
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
  if (q.size(0) == 0) return q;
  if (view.cache == nullptr) return causal_attention(q, k, v, batch.sequence_offset);
  if (view.block_table.defined()) {
    const gpu::BlockCache cache = {view.cache->keys(view.layer), view.cache->values(view.layer),
                                   view.block_table};
    return gpu::decode_attention(q, k, v, batch.positions, cache);
  }
  std::vector<at::Tensor> outputs;
  for (int64_t b = 0; b < batch.num_sequences(); ++b) {
    const int64_t begin = batch.sequence_offset[b], length = batch.sequence_offset[b + 1] - begin;
    if (length == 0) continue;
    const auto rows = [&](const at::Tensor& x) { return x.narrow(0, begin, length); };
    outputs.push_back(cached_sequence(rows(q), rows(k), rows(v), view, (*view.sequences)[b]));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs);
}

}  // namespace motley
