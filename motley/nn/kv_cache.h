// Key-value cache in blocks (paged): sequences grow block by block and give blocks back when they end.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace motley {

struct KvCacheShape {
  int64_t num_layers = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
};

class KvCache {
 public:
  // num_blocks blocks of block_size tokens, shared by all sequences. Throws when the shape is empty.
  KvCache(const KvCacheShape& shape, at::ScalarType dtype, int64_t num_blocks, int64_t block_size = 16,
          at::Device device = at::kCPU);

  int64_t add_sequence();            // its id
  void remove_sequence(int64_t id);  // its blocks are free again
  int64_t length(int64_t id) const;  // tokens cached in every layer (advances with commit)
  int64_t num_free_blocks() const { return static_cast<int64_t>(free_blocks_.size()); }

  // Makes room for num_tokens more tokens; throws c10::Error when no block is free.
  void reserve(int64_t id, int64_t num_tokens);
  // Writes keys and values [L, num_kv_heads, head_dim] of one layer at positions length(id) ...
  void append(int64_t layer, int64_t id, const at::Tensor& keys, const at::Tensor& values);
  // Keys and values of positions 0 .. num_tokens - 1: each [num_tokens, num_kv_heads, head_dim].
  std::pair<at::Tensor, at::Tensor> read(int64_t layer, int64_t id, int64_t num_tokens) const;
  // All blocks of a layer: [num_blocks, block_size, num_kv_heads, head_dim].
  const at::Tensor& keys(int64_t layer) const { return keys_.at(layer); }
  const at::Tensor& values(int64_t layer) const { return values_.at(layer); }
  // The reserved blocks of each sequence in order, [B, most blocks] int32 on the cache's device.
  at::Tensor block_table(const std::vector<int64_t>& ids) const;
  // After all layers of a forward pass: the appended tokens count into length(id).
  void commit(int64_t id, int64_t num_tokens);

 private:
  struct Sequence {
    bool live = false;
    int64_t length = 0;
    std::vector<int64_t> blocks;
  };
  const Sequence& sequence(int64_t id) const;
  // How many tokens from `position` on lie one after the other.
  int64_t tokens_in_run(const Sequence& sequence, int64_t position) const;

  KvCacheShape shape_;
  int64_t block_size_;
  std::vector<at::Tensor> keys_, values_;  // a layer each: [num_blocks, block_size, num_kv_heads, head_dim]
  std::vector<int64_t> free_blocks_;
  std::vector<Sequence> sequences_;
};

}  // namespace motley
