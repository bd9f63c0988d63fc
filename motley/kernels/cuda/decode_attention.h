// Attention of one new token per sequence over a key-value cache in blocks. Nothing here depends on values on
// the host, so that a decode step can be captured as a CUDA graph: lengths are the tokens' positions.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "motley/kernels/cuda/element.h"

namespace motley::cuda {

constexpr int kMaxDecodeHeadDim = 256;

struct BlockCache {
  void *keys, *values;     // of one layer: [num_blocks, block_size, H_kv, head_dim], of the queries' type
  const int* block_table;  // [B, table_width]: the blocks of each sequence, in order
  int table_width, block_size, num_kv_heads, head_dim;
  Element element;
};

// Writes keys and values [B, H_kv, head_dim], each row strides apart, at positions[b].
void append_to_cache(const BlockCache& cache, const void* keys, long key_stride, const void* values,
                     long value_stride, const long* positions, int num_sequences, cudaStream_t stream);

// out [B, H, head_dim] of queries [B, H, head_dim] over positions 0 .. positions[b]. Sums are fp32, in an
// order that depends on the sizes alone.
size_t decode_attention_workspace_bytes(const BlockCache& cache, int num_sequences, int num_heads);
void decode_attention(const BlockCache& cache, const void* queries, const long* positions, int num_sequences,
                      int num_heads, void* out, void* workspace, cudaStream_t stream);

}  // namespace motley::cuda
