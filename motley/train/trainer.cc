#include "motley/train/trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <cmath>

#include "motley/base/clock.h"
#include "motley/base/error.h"
#include "motley/ops/part.h"
#include "motley/train/finite.h"
#include "motley/train/parameters.h"
#include "motley/train/schedule.h"

namespace motley {
namespace {

constexpr uint64_t kGateNoise = 2;  // stream of mix_seed; the order of data takes 1, samples take 3

at::Tensor mean_loss(const at::Tensor& logits, const at::Tensor& targets) {
  const Part part("loss");
  return at::cross_entropy_loss(logits.to(at::kFloat), targets.to(logits.device()));
}

}  // namespace

struct Trainer::Pass {
  double loss;
  std::vector<Routing> routings;
  std::vector<int64_t> layers;
};

Trainer::Trainer(CausalLm& model, const RunConfig& config, const TokenStore& tokens, const TokenSplit& split)
    : model_(model),
      options_(config.train),
      sequence_length_(config.data.sequence_length),
      tokens_(tokens),
      split_(split),
      order_(config.train.seed, split.num_train(), config.data.sequence_length),
      optimizer_(trained_parameters(model),
                 {config.train.beta1, config.train.beta2, config.train.epsilon, config.train.weight_decay}) {
  if (sequence_length_ > model.max_positions()) {
    throw UserError(Mistake{place_of(config, "data.sequence_length"),
                            concat("at most the model's positions, ", model.max_positions()),
                            concat(sequence_length_), ""});
  }
}

int64_t Trainer::tokens_per_step() const {
  return options_.batch_size * options_.gradient_accumulation * sequence_length_;
}

bool Trainer::step(int64_t step, MetricsWindow& window, const std::function<bool()>& interrupted) {
  const double start = seconds_now();
  MetricsWindow updated = window;
  GradientSum sum(optimizer_.parameters(), options_.gradient_accumulation);
  std::vector<at::Tensor> load(model_.num_experts().size());
  for (int64_t pass = 0; pass < options_.gradient_accumulation; ++pass) {
    if (interrupted()) {
      sum.take();
      return false;
    }
    const Pass result = forward_backward(step, pass);
    if (!std::isfinite(result.loss)) fail(step, pass, "loss", result.loss, {});
    sum.add_pass();
    updated.add_pass(result.loss, result.routings, result.layers, options_.batch_size * sequence_length_);
    for (size_t layer = 0; layer < result.routings.size(); ++layer) {
      const at::Tensor& of_pass = result.routings[layer].load;
      load[layer] = load[layer].defined() ? load[layer].add(of_pass) : of_pass;
    }
  }
  const Part part("optimizer");
  std::vector<at::Tensor> gradients = sum.take();
  const double norm = global_norm(gradients);
  if (!std::isfinite(norm))
    fail(step, options_.gradient_accumulation - 1, "gradient's norm", norm, gradients);
  clip_gradients(gradients, norm, options_.gradient_clip);
  optimizer_.step(gradients, learning_rate(options_, step), step + 1);
  const std::vector<Gate*> gates = model_.gates();
  for (size_t layer = 0; layer < gates.size(); ++layer) gates[layer]->update(load[layer]);
  updated.add_step(norm, seconds_now() - start);
  window = std::move(updated);
  return true;
}

Trainer::Pass Trainer::forward_backward(int64_t step, int64_t pass) {
  const WindowBatch batch = pack_windows(tokens_, windows(step, pass));
  CausalLmOutput output = model_.forward(batch.inputs, forward_options(step, pass));
  const at::Tensor loss = mean_loss(output.logits, batch.targets);
  Pass result{0, std::move(output.routings), std::move(output.moe_layers)};
  at::Tensor total = loss;
  for (const Routing& routing : result.routings) {
    for (const AuxiliaryLoss& auxiliary : routing.losses) total = total.add(auxiliary.value);
  }
  total.div(static_cast<double>(options_.gradient_accumulation)).backward();
  result.loss = loss.item<double>();  // waits for a GPU: not before backward is in its queue
  return result;
}

ForwardOptions Trainer::forward_options(int64_t step, int64_t pass) const {
  ForwardOptions options;
  options.training = true;
  options.recompute = options_.activation_checkpointing;
  const auto index = static_cast<uint64_t>(step * options_.gradient_accumulation + pass);
  options.generator = at::detail::createCPUGenerator(mix_seed(options_.seed, kGateNoise, index));
  return options;
}

std::vector<TokenWindow> Trainer::windows(int64_t step, int64_t pass) const {
  const int64_t first = (step * options_.gradient_accumulation + pass) * options_.batch_size;
  std::vector<TokenWindow> windows;
  for (int64_t i = 0; i < options_.batch_size; ++i)
    windows.push_back({split_.train_begin + order_.begin(first + i), sequence_length_});
  return windows;
}

void Trainer::fail(int64_t step, int64_t pass, const std::string& what, double value,
                   const std::vector<at::Tensor>& gradients) {
  const WindowBatch batch = pack_windows(tokens_, windows(step, pass));
  const std::string place =
      find_non_finite(model_, batch.inputs, forward_options(step, pass), optimizer_.parameters(), gradients);
  throw DivergedError(concat("step ", step + 1, ": the ", what, " is ", value, "; ", place));
}

}  // namespace motley
