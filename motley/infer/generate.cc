#include "motley/infer/generate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "motley/base/error.h"
#include "motley/infer/decode_graph.h"
#include "motley/infer/packing.h"

namespace motley {
namespace {

struct Stream {
  size_t prompt;  // which one
  int64_t cache_id;
  int64_t length;  // tokens that the cache holds after the coming forward pass
  Sampler sampler;
};

// Tokens that the cache will hold at most of a prompt and its continuation.
int64_t cached_tokens(size_t prompt_size, int64_t max_new_tokens, int64_t limit) {
  const auto length = static_cast<int64_t>(prompt_size);
  return length + std::min(max_new_tokens, limit - length);
}

int64_t cache_blocks(const std::vector<std::vector<int64_t>>& prompts, int64_t max_new_tokens, int64_t limit,
                     int64_t block_size) {
  int64_t blocks = 0;
  for (const auto& prompt : prompts) {
    blocks += (cached_tokens(prompt.size(), max_new_tokens, limit) + block_size - 1) / block_size;
  }
  return blocks;
}

class Generation {
 public:
  Generation(CausalLm& model, const std::vector<std::vector<int64_t>>& prompts,
             const GenerateOptions& options, const TokenCallback& on_token)
      : model_(model),
        options_(options),
        on_token_(on_token),
        cache_(model.kv_cache_shape(), model.dtype(),
               cache_blocks(prompts, options.max_new_tokens, model.max_positions(), kBlockSize), kBlockSize,
               model.device()),
        results_(prompts.size()) {
    for (size_t i = 0; i < prompts.size(); ++i) {
      SamplingOptions sampling = options.sampling;
      sampling.seed += i;
      live_.push_back({i, cache_.add_sequence(), static_cast<int64_t>(prompts[i].size()), Sampler(sampling)});
      // All of it now: consecutive blocks are read without a copy.
      cache_.reserve(live_.back().cache_id,
                     cached_tokens(prompts[i].size(), options.max_new_tokens, model.max_positions()));
    }
  }

  std::vector<Generated> run(std::vector<std::vector<int64_t>> tokens) {
    std::vector<int64_t> first_positions(tokens.size(), 0);
    while (!live_.empty()) {
      step(tokens, first_positions);
      tokens.clear();
      first_positions.clear();
      for (Stream& stream : live_) {
        tokens.push_back({results_[stream.prompt].tokens.back()});
        first_positions.push_back(stream.length);
        stream.length += 1;
      }
    }
    return std::move(results_);
  }

 private:
  static constexpr int64_t kBlockSize = 16;

  // One forward pass; a token for every live sequence; those that end leave.
  void step(const std::vector<std::vector<int64_t>>& tokens, const std::vector<int64_t>& first_positions) {
    std::vector<int64_t> sequences;
    for (const Stream& stream : live_) sequences.push_back(stream.cache_id);
    const bool graph = prefilled_ && model_.device().is_cuda();
    const at::Tensor logits = (graph ? decode(tokens, first_positions, sequences)
                                     : forward(pack(tokens, first_positions), sequences))
                                  .to(at::kCPU, at::kFloat);
    prefilled_ = true;
    size_t row = 0;
    std::erase_if(live_, [&](Stream& stream) {
      if (!choose(stream, logits[static_cast<int64_t>(row++)])) return false;
      cache_.remove_sequence(stream.cache_id);
      return true;
    });
  }

  at::Tensor forward(const PackedBatch& batch, const std::vector<int64_t>& sequences) {
    ForwardOptions options;
    options.cache = &cache_;
    options.cache_sequences = sequences;
    std::vector<int64_t> last_rows;
    for (int64_t b = 0; b < batch.num_sequences(); ++b) last_rows.push_back(batch.sequence_offset[b + 1] - 1);
    options.output_rows = at::tensor(last_rows, at::kLong);
    return model_.forward(batch, options).logits;
  }

  // One token of each sequence. A graph serves as long as no sequence ends.
  at::Tensor decode(const std::vector<std::vector<int64_t>>& tokens, const std::vector<int64_t>& positions,
                    const std::vector<int64_t>& sequences) {
    if (!graph_ || graph_sequences_ != sequences) {
      graph_ = make_decode_graph(model_, cache_, sequences);
      graph_sequences_ = sequences;
    }
    std::vector<int64_t> ids;
    for (const auto& one : tokens) ids.push_back(one.front());
    const at::Tensor logits = graph_->run(ids, positions);
    for (const int64_t sequence : sequences) cache_.commit(sequence, 1);
    return logits;
  }

  // Appends the next token; true when the sequence ends with it.
  bool choose(Stream& stream, const at::Tensor& logits) {
    Generated& result = results_[stream.prompt];
    const int64_t token = sample(stream, logits);
    result.tokens.push_back(token);
    const auto& ends = options_.end_tokens;
    const bool wanted = !on_token_ || on_token_(stream.prompt, token);
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
      result.reason = StopReason::kEndOfSequence;
    } else if (!wanted) {
      result.reason = StopReason::kCallback;
    } else if (static_cast<int64_t>(result.tokens.size()) >= options_.max_new_tokens) {
      result.reason = StopReason::kMaxNewTokens;
    } else if (stream.length >= model_.max_positions()) {
      result.reason = StopReason::kMaxPositions;
    } else {
      return false;
    }
    return true;
  }

  int64_t sample(Stream& stream, const at::Tensor& logits) const {
    try {
      return stream.sampler.sample(logits);
    } catch (const NotFiniteError& error) {
      throw NotFiniteError(concat(error.what(), " at new token ", results_[stream.prompt].tokens.size() + 1,
                                  results_.size() > 1 ? concat(" of prompt ", stream.prompt) : ""));
    }
  }

  CausalLm& model_;
  const GenerateOptions& options_;
  const TokenCallback& on_token_;
  KvCache cache_;
  bool prefilled_ = false;
  std::unique_ptr<DecodeGraph> graph_;  // on a GPU
  std::vector<int64_t> graph_sequences_;
  std::vector<Stream> live_;
  std::vector<Generated> results_;
};

}  // namespace

void check_generation(const CausalLm& model, const std::vector<std::vector<int64_t>>& prompts,
                      const GenerateOptions& options) {
  if (options.max_new_tokens < 0) {
    throw UserError(Mistake{"max_new_tokens", "at least 0", concat(options.max_new_tokens), {}});
  }
  Sampler{options.sampling};  // checks its options
  check_prompts(model, prompts);
}

std::vector<Generated> generate(CausalLm& model, const std::vector<std::vector<int64_t>>& prompts,
                                const GenerateOptions& options, const TokenCallback& on_token) {
  check_generation(model, prompts, options);
  if (prompts.empty() || options.max_new_tokens == 0) return std::vector<Generated>(prompts.size());
  const at::NoGradGuard no_grad;
  return Generation(model, prompts, options, on_token).run(prompts);
}

std::string describe(StopReason reason) {
  switch (reason) {
    case StopReason::kMaxNewTokens:
      return "max_new_tokens";
    case StopReason::kEndOfSequence:
      return "end_of_sequence";
    case StopReason::kMaxPositions:
      return "max_positions";
    case StopReason::kCallback:
      return "stopped";
  }
  throw InternalError("unknown StopReason");
}

}  // namespace motley
