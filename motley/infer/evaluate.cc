#include "motley/infer/evaluate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "motley/base/error.h"
#include "motley/infer/packing.h"

namespace motley {
namespace {

struct Window {
  int64_t begin, length;  // predicts tokens begin + 1 .. begin + length
};

std::vector<Window> choose_windows(int64_t num_tokens, int64_t length, int64_t max_windows) {
  std::vector<Window> all;
  for (int64_t begin = 0; begin + 1 < num_tokens; begin += length) {
    all.push_back({begin, std::min(length, num_tokens - 1 - begin)});
  }
  const auto count = static_cast<int64_t>(all.size());
  if (max_windows == 0 || count <= max_windows) return all;
  std::vector<Window> spread;
  for (int64_t i = 0; i < max_windows; ++i) spread.push_back(all[i * count / max_windows]);
  return spread;
}

PackedBatch pack_windows(const at::Tensor& tokens, const std::vector<Window>& windows, at::Tensor& targets) {
  PackedBatch batch;
  batch.sequence_offset = {0};
  std::vector<at::Tensor> ids, positions, next;
  for (const Window& window : windows) {
    ids.push_back(tokens.narrow(0, window.begin, window.length));
    next.push_back(tokens.narrow(0, window.begin + 1, window.length));
    positions.push_back(at::arange(window.length, at::kLong));
    batch.sequence_offset.push_back(batch.sequence_offset.back() + window.length);
  }
  batch.ids = at::cat(ids);
  batch.positions = at::cat(positions);
  targets = at::cat(next);
  return batch;
}

int64_t check_options(const CausalLm& model, const at::Tensor& tokens, const EvaluationOptions& options) {
  TORCH_CHECK(tokens.dim() == 1 && tokens.scalar_type() == at::kLong && tokens.device().is_cpu(),
              "[evaluate] expected tokens [N] int64 on the CPU, got ", tokens.sizes(), " ",
              tokens.scalar_type());
  if (tokens.size(0) < 2) {
    throw UserError(Mistake{"data", "at least 2 tokens", concat(tokens.size(0)), {}});
  }
  const int64_t window = options.window == 0 ? std::min<int64_t>(model.max_positions(), 512) : options.window;
  if (window < 1 || window > model.max_positions()) {
    throw UserError(Mistake{"window",
                            concat("between 1 and the model's ", model.max_positions(), " positions"),
                            concat(window),
                            {}});
  }
  if (options.batch_windows < 1) {
    throw UserError(Mistake{"batch_windows", "at least 1", concat(options.batch_windows), {}});
  }
  if (options.max_windows < 0) {
    throw UserError(Mistake{"max_windows", "at least 0", concat(options.max_windows), {}});
  }
  const int64_t lowest = tokens.min().item<int64_t>(), highest = tokens.max().item<int64_t>();
  if (lowest < 0 || highest >= model.vocab_size()) {
    throw UserError(Mistake{"data",
                            concat("ids below the model's vocabulary of ", model.vocab_size()),
                            concat(lowest < 0 ? lowest : highest),
                            {}});
  }
  return window;
}

// Kept assignments to experts with a feed-forward network, per MoE layer.
void count_ffn_experts(const CausalLmOutput& output, const std::vector<int64_t>& num_experts,
                       std::vector<double>& counts) {
  counts.resize(output.routings.size());
  for (size_t layer = 0; layer < counts.size(); ++layer) {
    counts[layer] += output.routings[layer].load.narrow(0, 0, num_experts[layer]).sum().item<double>();
  }
}

}  // namespace

Evaluation evaluate(CausalLm& model, const at::Tensor& tokens, const EvaluationOptions& options,
                    const std::function<void(int64_t done, int64_t of)>& progress) {
  const int64_t length = check_options(model, tokens, options);
  const std::vector<Window> windows = choose_windows(tokens.size(0), length, options.max_windows);
  const auto total = static_cast<int64_t>(windows.size());
  const at::NoGradGuard no_grad;
  Evaluation result;
  double sum = 0;
  if (progress) progress(0, total);
  for (int64_t done = 0; done < total;) {
    const int64_t count = std::min(options.batch_windows, total - done);
    at::Tensor targets;
    const PackedBatch batch =
        pack_windows(tokens, {windows.begin() + done, windows.begin() + done + count}, targets);
    const CausalLmOutput output = model.forward(batch, {});
    const at::Tensor loss =
        at::cross_entropy_loss(output.logits.to(at::kFloat), targets.to(output.logits.device()));
    sum += loss.item<double>() * static_cast<double>(batch.num_tokens());
    result.num_tokens += batch.num_tokens();
    count_ffn_experts(output, model.num_experts(), result.ffn_experts_per_token);
    done += count;
    if (progress) progress(done, total);
  }
  result.loss = sum / static_cast<double>(result.num_tokens);
  for (double& experts : result.ffn_experts_per_token) experts /= static_cast<double>(result.num_tokens);
  return result;
}

std::vector<at::Tensor> prompt_logits(CausalLm& model, const std::vector<std::vector<int64_t>>& prompts) {
  check_prompts(model, prompts);
  if (prompts.empty()) return {};
  const at::NoGradGuard no_grad;
  const PackedBatch batch = pack(prompts);
  const at::Tensor logits = model.forward(batch, {}).logits.to(at::kFloat);
  std::vector<at::Tensor> parts;
  for (int64_t b = 0; b < batch.num_sequences(); ++b) {
    parts.push_back(logits.slice(0, batch.sequence_offset[b], batch.sequence_offset[b + 1]));
  }
  return parts;
}

}  // namespace motley
