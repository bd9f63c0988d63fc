// tokenizer.json as Hugging Face's tokenizers library reads and writes it.
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "motley/base/config_values.h"
#include "motley/base/error.h"
#include "motley/text/tokenizer.h"

namespace motley {
namespace {

constexpr const char* kFileName = "tokenizer.json";

// Byte-level BPE writes each byte as a printable character: printable Latin-1 bytes stand for themselves,
// the others for the code points from 256 on, in order.
std::array<std::string, 256> byte_characters() {
  std::array<std::string, 256> characters;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    const int code = printable ? byte : next++;
    std::string& utf8 = characters[byte];
    if (code >= 0x80) utf8.push_back(static_cast<char>(0xc0 | code >> 6));
    utf8.push_back(static_cast<char>(code >= 0x80 ? 0x80 | (code & 0x3f) : code));
  }
  return characters;
}

nlohmann::json byte_vocabulary() {
  nlohmann::json vocabulary = nlohmann::json::object();
  const auto characters = byte_characters();
  for (int byte = 0; byte < 256; ++byte) vocabulary[characters[byte]] = byte;
  return vocabulary;
}

}  // namespace

void write_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& model_folder) {
  MOTLEY_CHECK(tokenizer.name() == ByteTokenizer::kName, "no file format for tokenizer ", tokenizer.name());
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  const nlohmann::json file = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", nlohmann::json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", byte_vocabulary()},
        {"merges", nlohmann::json::array()}}},
  };
  const auto path = model_folder / kFileName;
  errno = 0;
  std::ofstream out(path, std::ios::binary);
  out << file.dump(2) << '\n';
  out.close();
  if (!out) throw_file_error("write", path.string(), errno);
}

std::unique_ptr<Tokenizer> read_tokenizer(const std::filesystem::path& model_folder) {
  const auto path = model_folder / kFileName;
  const char* fix = "use --tokens to give ids instead of text";
  if (!std::filesystem::exists(path))
    throw UserError(Mistake{path.string(), "a tokenizer", "no such file", fix});
  const nlohmann::json file = read_json_file(path.string());
  const auto model = file.is_object() ? file.value("model", nlohmann::json()) : nlohmann::json();
  const bool bytes = model.is_object() && model.value("type", nlohmann::json()) == "BPE" &&
                     model.value("merges", nlohmann::json()).empty() &&
                     model.value("vocab", nlohmann::json()) == byte_vocabulary() &&
                     file.value("added_tokens", nlohmann::json::array()).empty();
  if (!bytes) {
    throw UserError(Mistake{path.string(), "a byte-level BPE of the 256 bytes without merges or added tokens",
                            "another kind of tokenizer", fix});
  }
  return std::make_unique<ByteTokenizer>();
}

}  // namespace motley
