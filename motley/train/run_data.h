// The text of a run: tokens, split, and a fingerprint that tells whether it is still the same text.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "motley/text/token_store.h"
#include "motley/train/run_config.h"

namespace motley {

struct RunData {
  std::unique_ptr<Tokenizer> tokenizer;
  TokenStore tokens;
  TokenSplit split;

  nlohmann::json fingerprint() const;  // {"tokens", "crc32"}
  TokenSpan validation() const { return {tokens, split.validation_begin, split.validation_end}; }
};

// Throws UserError when there is no text, or too little for one training and one validation sequence.
RunData read_run_data(const DataConfig& config);

}  // namespace motley
