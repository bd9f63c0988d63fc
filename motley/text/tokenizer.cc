#include "motley/text/tokenizer.h"

#include "motley/base/error.h"

namespace motley {

std::vector<int64_t> ByteTokenizer::encode(std::string_view text) const {
  std::vector<int64_t> ids;
  ids.reserve(text.size());
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::string ByteTokenizer::decode(const std::vector<int64_t>& ids) const {
  std::string text;
  text.reserve(ids.size());
  for (const int64_t id : ids) {
    MOTLEY_CHECK_USER(id >= 0 && id < 256, "tokenizer bytes: expected ids from 0 to 255, found ", id);
    text.push_back(static_cast<char>(id));
  }
  return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name) {
  MOTLEY_CHECK_USER(name == ByteTokenizer::kName, "tokenizer: expected \"", ByteTokenizer::kName,
                    "\" (the only one so far), found \"", name, "\"");
  return std::make_unique<ByteTokenizer>();
}

}  // namespace motley
