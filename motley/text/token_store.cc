#include "motley/text/token_store.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "motley/base/error.h"

namespace motley {
namespace {

template <class T>
void widen(const uint8_t* data, int64_t count, int64_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, data + i * sizeof(T), sizeof(T));
    out[i] = value;
  }
}

}  // namespace

TokenStore::TokenStore(int64_t vocab_size)
    : vocab_size_(vocab_size),
      width_(vocab_size <= 1 << 8    ? 1
             : vocab_size <= 1 << 16 ? 2
                                     : 4) {
  MOTLEY_CHECK(vocab_size > 0 && vocab_size <= int64_t{1} << 32, "vocabulary of ", vocab_size);
}

void TokenStore::append(const std::vector<int64_t>& ids) {
  const size_t start = data_.size();
  data_.resize(start + ids.size() * width_);
  uint8_t* out = data_.data() + start;
  for (const int64_t id : ids) {
    MOTLEY_CHECK(id >= 0 && id < vocab_size_, "token ", id, " in a vocabulary of ", vocab_size_);
    highest_ = std::max(highest_, id);
    const auto value = static_cast<uint32_t>(id);  // little-endian: the low bytes come first
    std::memcpy(out, &value, width_);
    out += width_;
  }
  checksum_ = static_cast<uint32_t>(crc32_z(checksum_, data_.data() + start, data_.size() - start));
}

void TokenStore::copy(int64_t begin, int64_t count, int64_t* out) const {
  MOTLEY_CHECK(begin >= 0 && count >= 0 && begin + count <= size(), "tokens ", begin, " to ", begin + count,
               " of ", size());
  const uint8_t* data = data_.data() + begin * width_;
  if (width_ == 1) return widen<uint8_t>(data, count, out);
  if (width_ == 2) return widen<uint16_t>(data, count, out);
  widen<uint32_t>(data, count, out);
}

TokenisedText tokenize(const TextSource& source, const Tokenizer& tokenizer) {
  TokenStore store(tokenizer.vocab_size());
  const uint64_t bytes = source.read([&](std::string_view piece) { store.append(tokenizer.encode(piece)); });
  return {std::move(store), bytes};
}

TokenSplit split_tokens(int64_t num_tokens, double validation_fraction) {
  TokenSplit split;
  const auto num_validation =
      static_cast<int64_t>(std::floor(static_cast<double>(num_tokens) * validation_fraction));
  split.train_end = split.validation_begin = num_tokens - num_validation;
  split.validation_end = num_tokens;
  return split;
}

}  // namespace motley
