// Causal grouped-query attention (Ainslie et al., arXiv 2305.13245) over packed tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "motley/nn/kv_cache.h"
#include "motley/nn/packed_batch.h"
#include "motley/nn/rotary.h"
#include "motley/ops/parameters.h"

namespace motley {

// The cache's sequence of each of the batch's, for one layer; cache null: attention within the batch only.
struct CacheView {
  KvCache* cache = nullptr;
  int64_t layer = 0;
  const std::vector<int64_t>* sequences = nullptr;
  at::Tensor block_table;  // as ForwardOptions::cache_block_table has it
};

// q [T, H, hd]; k, v [T, H_kv, hd] with H a multiple of H_kv: query head h reads head h * H_kv / H.
// Each token sees its sequence's tokens up to itself: those before it in the batch and, with a cache,
// the cached ones; k and v are appended to the cache. Softmax scale hd^-0.5. Returns [T, H, hd].
// Differentiable without a cache. Throws c10::Error for shapes that do not fit.
at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const PackedBatch& batch, const CacheView& view = {});

struct AttentionOptions {
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
};

// Projections without biases, rotary embedding of queries and keys, attention, output projection.
class Attention {
 public:
  // Parameters are zeros, to be filled through visit().
  Attention(const AttentionOptions& options, at::ScalarType dtype);

  at::Tensor forward(const at::Tensor& x, const PackedBatch& batch, const RotaryTable& rotary,
                     const CacheView& view) const;  // [T, D] -> [T, D]
  // Names: q_proj.weight, k_proj.weight, v_proj.weight, o_proj.weight.
  void visit(const std::string& prefix, const TensorVisitor& visitor);

 private:
  AttentionOptions options_;
  at::Tensor q_, k_, v_, o_;  // [H * hd, D], [H_kv * hd, D] twice, [D, H * hd]
};

}  // namespace motley
