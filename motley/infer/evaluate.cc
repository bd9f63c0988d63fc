#include "motley/infer/evaluate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <algorithm>
#include <cmath>

#include "motley/base/error.h"
#include "motley/infer/packing.h"

namespace motley {
namespace {

std::vector<TokenWindow> choose_windows(const TokenSpan& tokens, int64_t length, int64_t max_windows) {
  const int64_t num_predicted = tokens.size() - 1;
  const int64_t count = (num_predicted + length - 1) / length;
  const int64_t chosen = max_windows == 0 ? count : std::min(max_windows, count);
  std::vector<TokenWindow> windows;
  for (int64_t i = 0; i < chosen; ++i) {
    // Without a product that could overflow: i * count / chosen.
    const int64_t offset = (i * (count / chosen) + i * (count % chosen) / chosen) * length;
    windows.push_back({tokens.begin + offset, std::min(length, num_predicted - offset)});
  }
  return windows;
}

int64_t check_options(const CausalLm& model, const TokenSpan& tokens, const EvaluationOptions& options) {
  if (tokens.size() < 2) throw UserError(Mistake{"data", "at least 2 tokens", concat(tokens.size()), {}});
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
  if (tokens.store->highest() >= model.vocab_size()) {
    throw UserError(Mistake{"data",
                            concat("ids below the model's vocabulary of ", model.vocab_size()),
                            concat(tokens.store->highest()),
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

Evaluation evaluate(CausalLm& model, const TokenSpan& tokens, const EvaluationOptions& options,
                    const std::function<void(int64_t done, int64_t of)>& progress) {
  const int64_t length = check_options(model, tokens, options);
  const std::vector<TokenWindow> windows = choose_windows(tokens, length, options.max_windows);
  const auto total = static_cast<int64_t>(windows.size());
  const at::NoGradGuard no_grad;
  Evaluation result;
  double sum = 0;
  if (progress) progress(0, total);
  for (int64_t done = 0; done < total;) {
    if (options.interrupted && options.interrupted()) {
      result.interrupted = true;
      return result;
    }
    const int64_t count = std::min(options.batch_windows, total - done);
    const std::vector<TokenWindow> part(windows.begin() + done, windows.begin() + done + count);
    const WindowBatch batch = pack_windows(*tokens.store, part);
    const CausalLmOutput output = model.forward(batch.inputs, {});
    const at::Device device = output.logits.device();
    const double loss =
        at::cross_entropy_loss(output.logits.to(at::kFloat), batch.targets.to(device)).item<double>();
    if (!std::isfinite(loss)) {
      result.loss = loss;
      result.not_finite = part;
      return result;
    }
    const int64_t predicted = batch.inputs.num_tokens();
    sum += loss * static_cast<double>(predicted);
    result.num_tokens += predicted;
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
