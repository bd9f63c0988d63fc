// Chooses the next token from logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <random>
#include <stdexcept>

namespace motley {

// The model's logits have no finite largest one: neither a mistake in the command nor a bug.
class NotFiniteError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy
  int64_t top_k = 0;         // keep the k likeliest; 0: all
  double top_p = 1.0;        // then the fewest likeliest whose probabilities reach p
  uint64_t seed = 0;
};

// One stream of choices: the same options and logits give the same tokens.
class Sampler {
 public:
  // Throws UserError naming the option: temperature >= 0, top_k >= 0, 0 < top_p <= 1; top_k or top_p
  // without a temperature has no effect and is an error too.
  explicit Sampler(const SamplingOptions& options);

  // logits [V], any floating dtype. Equal logits: the lowest id wins. Throws NotFiniteError when none is
  // finite or the largest is infinite.
  int64_t sample(const at::Tensor& logits);

 private:
  SamplingOptions options_;
  std::mt19937_64 random_;
};

}  // namespace motley
