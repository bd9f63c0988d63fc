#include "benchmarks/train/training_step.h"

#include <ctime>
#include <random>

#include "motley/models/registry.h"
#include "motley/ops/device.h"
#include "motley/train/trainer.h"

namespace motley::bench {
namespace {

constexpr int64_t kWarmUp = 3;
constexpr int64_t kSequences = 64;  // of random text

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

TokenStore random_tokens(int64_t vocab_size, int64_t count) {
  std::mt19937_64 random(1);
  std::vector<int64_t> ids(count);
  for (int64_t& id : ids) id = static_cast<int64_t>(random() % static_cast<uint64_t>(vocab_size));
  TokenStore tokens(vocab_size);
  tokens.append(ids);
  return tokens;
}

}  // namespace

TrainingStepResult bench_training_step(const RunConfig& config, double seconds) {
  const TrainOptions& options = config.train;
  const bool sums_in_fp32 = options.dtype != at::kFloat && options.gradient_accumulation > 1;
  const c10::Device device = parse_device(options.device, "--device");
  const auto model =
      make_model(config.model, options.seed, options.dtype, {.fp32_expert_gradients = sums_in_fp32});
  if (!device.is_cpu()) use_deterministic_algorithms();
  model->to(device);
  const TokenStore tokens =
      random_tokens(model->vocab_size(), kSequences * (config.data.sequence_length + 1));
  Trainer trainer(*model, config, tokens, split_tokens(tokens.size(), 0));
  MetricsWindow window(model->num_experts());
  int64_t done = 0;
  const auto step = [&](int64_t = 0) { trainer.step(done++, window, [] { return false; }); };
  while (done < kWarmUp) step();

  TrainingStepResult result{};
  result.tokens = trainer.tokens_per_step();
  window.clear();
  const double used = processor_seconds();
  const int64_t first = done;
  result.step = measure(seconds / 2, step, device);
  result.processor_seconds = (processor_seconds() - used) / static_cast<double>(done - first);
  result.ffn_experts_per_token = window.ffn_experts_per_token();

  PartTimes listener(device);
  int64_t heard = 0;
  for (const double begin = seconds_now(); heard < 3 || seconds_now() - begin < seconds / 2; ++heard) {
    step();
    for (const auto& [part, time] : listener.take()) {
      result.parts[part].forward += time.forward;
      result.parts[part].backward += time.backward;
    }
  }
  for (auto& [part, time] : result.parts) {
    time.forward /= static_cast<double>(heard);
    time.backward /= static_cast<double>(heard);
  }
  return result;
}

}  // namespace motley::bench
