// Rotary position embedding (Su et al., arXiv 2104.09864), in the halves layout of GPT-NeoX and Llama:
// element i is rotated together with element i + head_dim / 2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace motley {

class RotaryTable {
 public:
  // Angles position * theta^(-2i / head_dim) for i < head_dim / 2. Throws c10::Error for an odd head_dim.
  RotaryTable(int64_t max_positions, int64_t head_dim, double theta);

  // x [T, H, head_dim] fp32 or bf16, positions [T] int64 below max_positions. Differentiable in x.
  at::Tensor rotate(const at::Tensor& x, const at::Tensor& positions) const;

  void to(at::Device device) { table_ = table_.to(device); }

  int64_t max_positions() const { return table_.size(0); }

 private:
  at::Tensor table_;  // [max_positions, head_dim]: cosines, then sines, of head_dim / 2 angles
};

// Without autograd. inverse: rotates back, which is the backward pass.
at::Tensor rotary_forward(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& table,
                          bool inverse);
// With autograd.
at::Tensor rotary(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& table);

}  // namespace motley
