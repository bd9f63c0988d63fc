// Text to token ids and back.
#pragma once

#include <cstdint>
#include <filesystem>
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

// A model folder's tokenizer.json, in the format of Hugging Face's tokenizers: a byte tokenizer is a
// byte-level BPE of 256 tokens without merges. Reading throws UserError naming the file when it is
// missing, malformed or of a kind that is not supported.
void write_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& model_folder);
std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& model_folder);

}  // namespace motley
