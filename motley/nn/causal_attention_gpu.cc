// Causal attention on a GPU by torch's own kernels: flash attention where it takes type and head size, else
// products of matrices, which keep L x L weights.
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "motley/nn/causal_attention.h"

namespace motley {
namespace {

constexpr int64_t kMaxFlashHeadDim = 256;

int64_t longest(const std::vector<int64_t>& offsets) {
  int64_t most = 0;
  for (size_t b = 0; b + 1 < offsets.size(); ++b) most = std::max(most, offsets[b + 1] - offsets[b]);
  return most;
}

// Offsets on the device; sequences of one length need no copy from the host.
at::Tensor device_offsets(const std::vector<int64_t>& offsets, const at::Tensor& like) {
  const auto options = like.options().dtype(at::kInt);
  const int64_t length = longest(offsets), count = static_cast<int64_t>(offsets.size()) - 1;
  if (length * count == offsets.back()) return at::arange(0, length * count + 1, length, options);
  return at::tensor(offsets, at::kInt).to(like.device());
}

at::Tensor by_products(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const std::vector<int64_t>& offsets) {
  std::vector<at::Tensor> outputs;
  for (size_t b = 0; b + 1 < offsets.size(); ++b) {
    const int64_t length = offsets[b + 1] - offsets[b];
    if (length == 0) continue;
    const auto heads_first = [&](const at::Tensor& x) {
      return x.narrow(0, offsets[b], length).transpose(0, 1).unsqueeze(0);
    };
    const at::Tensor out = std::get<0>(at::_scaled_dot_product_attention_math(
        heads_first(q), heads_first(k), heads_first(v), {}, 0.0, /*is_causal=*/true, {}, {},
        /*enable_gqa=*/q.size(1) != k.size(1)));
    outputs.push_back(out.squeeze(0).transpose(0, 1));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs);
}

}  // namespace

at::Tensor causal_attention_gpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const std::vector<int64_t>& offsets) {
  const auto type = q.scalar_type();
  const bool flash = (type == at::kBFloat16 || type == at::kHalf) && q.size(2) % 8 == 0 &&
                     q.size(2) <= kMaxFlashHeadDim && k.scalar_type() == type && v.scalar_type() == type;
  if (q.size(0) == 0) return q;
  if (!flash) return by_products(q, k, v, offsets);
  const at::Tensor bounds = device_offsets(offsets, q);
  const int64_t length = longest(offsets);
  return std::get<0>(at::_flash_attention_forward(q, k, v, bounds, bounds, length, length, 0.0,
                                                  /*is_causal=*/true, /*return_debug_mask=*/false));
}

}  // namespace motley
