#include "motley/models/initialisation.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <string_view>

namespace motley {
namespace {

// FNV-1a over the name, mixed with the seed: the same on every machine, unlike std::hash.
uint64_t seed_of(uint64_t seed, std::string_view name) {
  uint64_t hash = 14695981039346656037ull ^ (seed * 0x9E3779B97F4A7C15ull);
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash ^ (hash >> 29);
}

bool contains(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

}  // namespace

void initialise(CausalLm& model, uint64_t seed, double std, int64_t num_layers) {
  const at::NoGradGuard no_grad;
  model.visit([&](const std::string& name, at::Tensor& tensor, TensorRole role) {
    if (contains(name, "norm.weight")) {
      tensor.fill_(1);
    } else if (role == TensorRole::kBuffer || contains(name, "bias")) {
      tensor.zero_();
    } else {
      const bool writes_stream = contains(name, "o_proj") || contains(name, "down_proj");
      auto generator = at::make_generator<at::CPUGeneratorImpl>(seed_of(seed, name));
      auto values = at::empty(tensor.sizes(), at::kFloat);
      values.normal_(0.0, writes_stream ? std / std::sqrt(2.0 * num_layers) : std, generator);
      tensor.copy_(values);
    }
  });
}

}  // namespace motley
