// Generation: prefill, then one token of every live sequence a step, through the key-value cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "motley/infer/sampler.h"
#include "motley/models/causal_lm.h"

namespace motley {

enum class StopReason { kMaxNewTokens, kEndOfSequence, kMaxPositions, kCallback };
std::string describe(StopReason reason);  // as JSON results have it: "max_new_tokens", ...

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  std::vector<int64_t> end_tokens;  // generation of a sequence ends with one of these, which is returned too
  SamplingOptions sampling;         // sequence i draws from seed + i
};

struct Generated {
  std::vector<int64_t> tokens;  // new ones only
  StopReason reason = StopReason::kMaxNewTokens;
};

// Called with each new token as it is chosen; false ends that sequence.
using TokenCallback = std::function<bool(size_t sequence, int64_t token)>;

// Throws UserError: an option out of range, an empty prompt, an id outside the vocabulary, a prompt longer
// than the model's positions.
void check_generation(const CausalLm& model, const std::vector<std::vector<int64_t>>& prompts,
                      const GenerateOptions& options);

// All prompts are one packed batch. Throws what check_generation() throws, and NotFiniteError.
std::vector<Generated> generate(CausalLm& model, const std::vector<std::vector<int64_t>>& prompts,
                                const GenerateOptions& options, const TokenCallback& on_token = {});

}  // namespace motley
