// What nn computes in CUDA kernels of its own. In a build without CUDA no tensor is on a GPU, and each of
// these throws.
#pragma once

#include <ATen/core/Tensor.h>

namespace motley::gpu {

// As rotary_forward.
at::Tensor rotary(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& table, bool inverse);

// One layer of a cache in blocks [num_blocks, block_size, H_kv, head_dim], and the blocks of each of B
// sequences [B, table_width] int32, in order.
struct BlockCache {
  at::Tensor keys, values, block_table;
};

// Attention of one new token of each sequence: q [B, H, head_dim], k and v [B, H_kv, head_dim] at positions
// [B] int64, after k and v are written into the cache there. Waits for nothing on the device.
at::Tensor decode_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& positions, const BlockCache& cache);

}  // namespace motley::gpu
