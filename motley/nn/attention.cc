#include "motley/nn/attention.h"

#include <ATen/ops/zeros.h>

#include "motley/nn/projection.h"
#include "motley/ops/part.h"

namespace motley {

Attention::Attention(const AttentionOptions& options, at::ScalarType dtype) : options_(options) {
  TORCH_CHECK(
      options.hidden_size > 0 && options.num_heads > 0 && options.num_kv_heads > 0 && options.head_dim > 0 &&
          options.num_heads % options.num_kv_heads == 0,
      "[Attention] expected positive sizes and num_heads a multiple of num_kv_heads, got hidden_size ",
      options.hidden_size, ", num_heads ", options.num_heads, ", num_kv_heads ", options.num_kv_heads,
      ", head_dim ", options.head_dim);
  const int64_t width = options.num_heads * options.head_dim,
                kv_width = options.num_kv_heads * options.head_dim;
  q_ = at::zeros({width, options.hidden_size}, dtype);
  k_ = at::zeros({kv_width, options.hidden_size}, dtype);
  v_ = at::zeros({kv_width, options.hidden_size}, dtype);
  o_ = at::zeros({options.hidden_size, width}, dtype);
}

at::Tensor Attention::forward(const at::Tensor& x, const PackedBatch& batch, const RotaryTable& rotary,
                              const CacheView& view) const {
  const Part part("attention");
  const int64_t tokens = x.size(0);
  const auto heads = [&](const at::Tensor& weight, int64_t count) {
    return project(x, weight).view({tokens, count, options_.head_dim});
  };
  const at::Tensor q = rotary.rotate(heads(q_, options_.num_heads), batch.positions);
  const at::Tensor k = rotary.rotate(heads(k_, options_.num_kv_heads), batch.positions);
  const at::Tensor v = heads(v_, options_.num_kv_heads);
  return project(packed_attention(q, k, v, batch, view).reshape({tokens, -1}), o_);
}

void Attention::visit(const std::string& prefix, const TensorVisitor& visitor) {
  visitor(prefix + "q_proj.weight", q_, TensorRole::kParameter);
  visitor(prefix + "k_proj.weight", k_, TensorRole::kParameter);
  visitor(prefix + "v_proj.weight", v_, TensorRole::kParameter);
  visitor(prefix + "o_proj.weight", o_, TensorRole::kParameter);
}

}  // namespace motley
