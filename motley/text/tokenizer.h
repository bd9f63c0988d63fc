// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace motley {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string name() const = 0;  // as the configuration writes it
  virtual int64_t vocab_size() const = 0;
  virtual std::vector<int64_t> encode(std::string_view text) const = 0;
  // Any ids in [0, vocab_size) are allowed, in any order, so that a stream may be decoded id by id; the
  // bytes of one character may then arrive in several calls. Throws UserError for an id outside.
  virtual std::string decode(const std::vector<int64_t>& ids) const = 0;
};

// One token a byte: 256 ids, every text round-trips.
class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr const char* kName = "bytes";
  std::string name() const override { return kName; }
  int64_t vocab_size() const override { return 256; }
  std::vector<int64_t> encode(std::string_view text) const override;
  std::string decode(const std::vector<int64_t>& ids) const override;
};

// Throws UserError that lists the known names.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);

}  // namespace motley
