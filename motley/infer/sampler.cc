#include "motley/infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "motley/base/error.h"

namespace motley {
namespace {

void check(bool ok, const char* option, const char* expected, double found, const char* fix = "") {
  if (!ok) throw UserError(Mistake{option, expected, concat(found), fix});
}

// In (0, 1]: 53 random bits, written out because std::uniform_real_distribution differs between libraries.
double uniform(std::mt19937_64& random) { return static_cast<double>((random() >> 11) + 1) * 0x1.0p-53; }

}  // namespace

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  check(std::isfinite(options.temperature) && options.temperature >= 0, "temperature",
        "a number of at least 0", options.temperature);
  check(options.top_k >= 0, "top_k", "at least 0", static_cast<double>(options.top_k));
  check(options.top_p > 0 && options.top_p <= 1, "top_p", "a number above 0 and at most 1", options.top_p);
  if (options.temperature > 0) return;
  const char* fix = "set a temperature above 0";
  check(options.top_k == 0, "top_k", "0 for greedy choice, on which it has no effect",
        static_cast<double>(options.top_k), fix);
  check(options.top_p == 1, "top_p", "1 for greedy choice, on which it has no effect", options.top_p, fix);
}

int64_t Sampler::sample(const at::Tensor& logits) {
  TORCH_CHECK(logits.dim() == 1 && logits.size(0) > 0, "[sample] expected logits [V], got ", logits.sizes());
  const at::Tensor wide = logits.to(at::kCPU, at::kFloat).contiguous();
  const float* values = wide.const_data_ptr<float>();
  const int64_t size = wide.size(0);
  int64_t best = -1;
  for (int64_t i = 0; i < size; ++i) {
    if (!std::isnan(values[i]) && (best < 0 || values[i] > values[best])) best = i;
  }
  if (best < 0 || !std::isfinite(values[best])) {
    throw NotFiniteError(concat("the model's largest logit is ", best < 0 ? NAN : values[best]));
  }
  if (options_.temperature == 0) return best;

  std::vector<int64_t> order;
  for (int64_t i = 0; i < size; ++i) {
    if (!std::isnan(values[i])) order.push_back(i);
  }
  const auto likelier = [&](int64_t a, int64_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  };
  const auto all = static_cast<int64_t>(order.size());
  int64_t kept = options_.top_k > 0 ? std::min(options_.top_k, all) : all;
  if (kept < all || options_.top_p < 1) {
    std::partial_sort(order.begin(), order.begin() + kept, order.end(), likelier);
  }
  std::vector<double> weights(kept);
  for (int64_t i = 0; i < kept; ++i) {
    weights[i] = std::exp((static_cast<double>(values[order[i]]) - values[best]) / options_.temperature);
  }
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (options_.top_p < 1) {
    double sum = 0;
    int64_t nucleus = 0;
    while (nucleus < kept && sum < options_.top_p * total) sum += weights[nucleus++];
    kept = nucleus;
    total = sum;
  }
  double left = uniform(random_) * total;
  int64_t chosen = 0;
  while (chosen + 1 < kept && left > weights[chosen]) left -= weights[chosen++];
  return order[chosen];
}

}  // namespace motley
