// Causal attention within each of a batch's sequences, fused: nothing of size L x L is kept.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>
#include <vector>

namespace motley {

// q [T, H, hd]; k, v [T, H_kv, hd], fp32 or bf16, with H a multiple of H_kv; sequence b has tokens
// offsets[b] .. offsets[b + 1]. Softmax scale hd^-0.5; sums in fp32. Returns [T, H, hd].
// Differentiable; keeps q, k, v, the result and a number per token and head. The result does not depend
// on the number of threads. Throws c10::Error for other dtypes and shapes.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<int64_t>& offsets);

// The same on a GPU.
at::Tensor causal_attention_gpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const std::vector<int64_t>& offsets);

// Without autograd: the result, and the log of the sum of exponentials [H, T] fp32.
std::tuple<at::Tensor, at::Tensor> causal_attention_forward(const at::Tensor& q, const at::Tensor& k,
                                                            const at::Tensor& v,
                                                            const std::vector<int64_t>& offsets);
// dq, dk, dv.
std::tuple<at::Tensor, at::Tensor, at::Tensor> causal_attention_backward(
    const at::Tensor& d_out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& out, const at::Tensor& lse, const std::vector<int64_t>& offsets);

}  // namespace motley
