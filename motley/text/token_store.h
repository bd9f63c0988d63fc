// Tokens in as few bytes as the vocabulary allows: text tokenised to bytes takes no more than the text.
#pragma once

#include <cstdint>
#include <vector>

#include "motley/text/text_source.h"
#include "motley/text/tokenizer.h"

namespace motley {

class TokenStore {
 public:
  explicit TokenStore(int64_t vocab_size);  // 1, 2 or 4 bytes a token

  void append(const std::vector<int64_t>& ids);
  int64_t size() const { return static_cast<int64_t>(data_.size()) / width_; }
  int width() const { return width_; }
  int64_t highest() const { return highest_; }  // token so far, -1 if none
  // Widens tokens begin .. begin + count - 1 into `out`.
  void copy(int64_t begin, int64_t count, int64_t* out) const;
  // CRC-32 of all tokens: tells whether a run goes on with the data that it began with.
  uint32_t checksum() const { return checksum_; }

 private:
  int64_t vocab_size_;
  int width_;
  std::vector<uint8_t> data_;
  int64_t highest_ = -1;
  uint32_t checksum_ = 0;
};

// Tokens begin .. end - 1 of a store, which must outlive it.
struct TokenSpan {
  TokenSpan(const TokenStore& whole) : TokenSpan(whole, 0, whole.size()) {}
  TokenSpan(const TokenStore& store, int64_t begin, int64_t end) : store(&store), begin(begin), end(end) {}
  int64_t size() const { return end - begin; }

  const TokenStore* store;
  int64_t begin, end;
};

struct TokenisedText {
  TokenStore tokens;
  uint64_t num_bytes;  // of the text
};

// All tokens of a source. Tokenises piece by piece, which suits tokenizers that see one byte at a time.
TokenisedText tokenize(const TextSource& source, const Tokenizer& tokenizer);

// Training and validation: the last `fraction` of the tokens validates. Both are ranges [begin, end).
struct TokenSplit {
  int64_t train_begin = 0, train_end = 0;
  int64_t validation_begin = 0, validation_end = 0;

  int64_t num_train() const { return train_end - train_begin; }
  int64_t num_validation() const { return validation_end - validation_begin; }
};
TokenSplit split_tokens(int64_t num_tokens, double validation_fraction);

}  // namespace motley
