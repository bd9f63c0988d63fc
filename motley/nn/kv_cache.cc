#include "motley/nn/kv_cache.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

namespace motley {
namespace {

// Free blocks are kept in ascending order. Consecutive blocks let read() return a view instead of a copy,
// so a request is met by the run after `last`, else the first run that is long enough, else the lowest.
size_t find_run(const std::vector<int64_t>& free_blocks, size_t count, int64_t last) {
  const auto run_at = [&](size_t i) {
    return i + count <= free_blocks.size() &&
           free_blocks[i + count - 1] - free_blocks[i] == static_cast<int64_t>(count) - 1;
  };
  const auto next = std::lower_bound(free_blocks.begin(), free_blocks.end(), last + 1);
  if (last >= 0 && next != free_blocks.end() && *next == last + 1) {
    const size_t i = next - free_blocks.begin();
    if (run_at(i)) return i;
  }
  for (size_t i = 0; i + count <= free_blocks.size(); ++i) {
    if (run_at(i)) return i;
  }
  return 0;
}

}  // namespace

KvCache::KvCache(const KvCacheShape& shape, at::ScalarType dtype, int64_t num_blocks, int64_t block_size,
                 at::Device device)
    : shape_(shape), block_size_(block_size) {
  TORCH_CHECK(shape.num_layers > 0 && shape.num_kv_heads > 0 && shape.head_dim > 0 && num_blocks > 0 &&
                  block_size > 0,
              "[KvCache] expected positive sizes, got ", shape.num_layers, " layers, ", shape.num_kv_heads,
              " heads of ", shape.head_dim, ", ", num_blocks, " blocks of ", block_size);
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    const std::vector<int64_t> sizes = {num_blocks, block_size, shape.num_kv_heads, shape.head_dim};
    keys_.push_back(at::empty(sizes, options));
    values_.push_back(at::empty(sizes, options));
  }
  free_blocks_.resize(num_blocks);
  std::iota(free_blocks_.begin(), free_blocks_.end(), 0);
}

const KvCache::Sequence& KvCache::sequence(int64_t id) const {
  TORCH_CHECK(id >= 0 && id < static_cast<int64_t>(sequences_.size()) && sequences_[id].live,
              "[KvCache] expected the id of a live sequence, got ", id);
  return sequences_[id];
}

int64_t KvCache::add_sequence() {
  const auto unused =
      std::find_if(sequences_.begin(), sequences_.end(), [](const Sequence& s) { return !s.live; });
  const int64_t id = unused - sequences_.begin();
  if (unused == sequences_.end()) sequences_.emplace_back();
  sequences_[id].live = true;
  return id;
}

void KvCache::remove_sequence(int64_t id) {
  const auto& blocks = sequence(id).blocks;
  free_blocks_.insert(free_blocks_.end(), blocks.begin(), blocks.end());
  std::sort(free_blocks_.begin(), free_blocks_.end());
  sequences_[id] = {};
}

int64_t KvCache::length(int64_t id) const { return sequence(id).length; }

void KvCache::reserve(int64_t id, int64_t num_tokens) {
  const Sequence& current = sequence(id);
  const int64_t wanted = (current.length + num_tokens + block_size_ - 1) / block_size_;
  const int64_t missing = wanted - static_cast<int64_t>(current.blocks.size());
  if (missing <= 0) return;
  TORCH_CHECK(missing <= num_free_blocks(), "[KvCache] expected ", missing, " free blocks for ", num_tokens,
              " more tokens, got ", num_free_blocks(), ": make the cache larger or end sequences");
  auto& blocks = sequences_[id].blocks;
  const size_t first = find_run(free_blocks_, missing, blocks.empty() ? -1 : blocks.back());
  blocks.insert(blocks.end(), free_blocks_.begin() + first, free_blocks_.begin() + first + missing);
  free_blocks_.erase(free_blocks_.begin() + first, free_blocks_.begin() + first + missing);
}

void KvCache::append(int64_t layer, int64_t id, const at::Tensor& keys, const at::Tensor& values) {
  TORCH_CHECK(layer >= 0 && layer < shape_.num_layers, "[KvCache] expected a layer below ", shape_.num_layers,
              ", got ", layer);
  const std::vector<int64_t> expected = {keys.size(0), shape_.num_kv_heads, shape_.head_dim};
  TORCH_CHECK(keys.sizes() == at::IntArrayRef(expected) && values.sizes() == keys.sizes(),
              "[KvCache] expected keys and values ", expected, ", got ", keys.sizes(), " and ",
              values.sizes());
  const int64_t num_tokens = keys.size(0);
  reserve(id, num_tokens);
  const Sequence& current = sequence(id);
  for (int64_t done = 0; done < num_tokens;) {
    const int64_t position = current.length + done, within = position % block_size_;
    const int64_t count = std::min(num_tokens - done, tokens_in_run(current, position));
    const int64_t block = current.blocks[position / block_size_];
    const auto place = [&](const at::Tensor& cached) {
      return cached.flatten(0, 1).narrow(0, block * block_size_ + within, count);
    };
    place(keys_[layer]).copy_(keys.narrow(0, done, count));
    place(values_[layer]).copy_(values.narrow(0, done, count));
    done += count;
  }
}

int64_t KvCache::tokens_in_run(const Sequence& sequence, int64_t position) const {
  const auto& blocks = sequence.blocks;
  size_t last = position / block_size_;
  while (last + 1 < blocks.size() && blocks[last + 1] == blocks[last] + 1) ++last;
  return (static_cast<int64_t>(last) + 1) * block_size_ - position;
}

at::Tensor KvCache::block_table(const std::vector<int64_t>& ids) const {
  size_t width = 0;
  for (const int64_t id : ids) width = std::max(width, sequence(id).blocks.size());
  const auto rows = static_cast<int64_t>(ids.size());
  at::Tensor table = at::zeros({rows, static_cast<int64_t>(width)}, at::kInt);
  for (int64_t row = 0; row < rows; ++row) {
    const auto& blocks = sequence(ids[row]).blocks;
    std::copy(blocks.begin(), blocks.end(), table.mutable_data_ptr<int32_t>() + row * table.size(1));
  }
  return table.to(keys_[0].device());
}

std::pair<at::Tensor, at::Tensor> KvCache::read(int64_t layer, int64_t id, int64_t num_tokens) const {
  const auto& blocks = sequence(id).blocks;
  const int64_t count = (num_tokens + block_size_ - 1) / block_size_;
  TORCH_CHECK(count <= static_cast<int64_t>(blocks.size()), "[KvCache] expected at most ",
              blocks.size() * block_size_, " tokens, got ", num_tokens);
  const auto tokens = [&](const at::Tensor& cached) {
    const auto rows = [&](const at::Tensor& x) {
      return x.reshape({count * block_size_, shape_.num_kv_heads, shape_.head_dim}).narrow(0, 0, num_tokens);
    };
    if (count == 0) return rows(cached.narrow(0, 0, 0));
    const bool consecutive =
        blocks[count - 1] - blocks[0] == count - 1 && std::is_sorted(blocks.begin(), blocks.begin() + count);
    if (consecutive) return rows(cached.narrow(0, blocks[0], count));
    const auto chosen = at::tensor(at::IntArrayRef(blocks.data(), count), at::kLong);
    return rows(cached.index_select(0, chosen.to(cached.device())));
  };
  return {tokens(keys_.at(layer)), tokens(values_.at(layer))};
}

void KvCache::commit(int64_t id, int64_t num_tokens) {
  const Sequence& current = sequence(id);
  TORCH_CHECK(current.length + num_tokens <= static_cast<int64_t>(current.blocks.size()) * block_size_,
              "[KvCache] expected appended tokens, got a commit of ", num_tokens, " that were not");
  sequences_[id].length += num_tokens;
}

}  // namespace motley
