#include "motley/train/run_data.h"

#include "motley/base/error.h"
#include "motley/base/format.h"
#include "motley/base/log.h"

namespace motley {

nlohmann::json RunData::fingerprint() const {
  return {{"tokens", tokens.size()}, {"crc32", tokens.checksum()}};
}

RunData read_run_data(const DataConfig& config) {
  const TextSource source(config.path);
  if (!source.skipped().empty()) {
    log_warn("passed over ", source.skipped().size(), " files under ", config.path,
             " that are empty or not text, such as ", source.skipped().front().string());
  }
  auto tokenizer = make_tokenizer(config.tokenizer);
  TokenStore tokens = tokenize(source, *tokenizer).tokens;
  const TokenSplit split = split_tokens(tokens.size(), config.validation_fraction);
  const bool validates = config.validation_fraction > 0;
  if (split.num_train() <= config.sequence_length || (validates && split.num_validation() < 2)) {
    throw UserError(
        Mistake{config.path,
                concat("text for sequences of data.sequence_length = ", config.sequence_length, " tokens"),
                concat(split.num_train(), " training and ", split.num_validation(), " validation tokens"),
                "take more text or shorter sequences"});
  }
  const size_t num_files = source.files().size();
  log_info("text: ", num_files, num_files == 1 ? " file, " : " files, ",
           format_count(static_cast<double>(split.num_train())), " training and ",
           format_count(static_cast<double>(split.num_validation())), " validation tokens");
  return {std::move(tokenizer), std::move(tokens), split};
}

}  // namespace motley
