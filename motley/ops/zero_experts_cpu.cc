// The zero-computation experts on CPU: one pass over the tokens, each read once.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "motley/ops/operators.h"
#include "motley/ops/zero_experts.h"

namespace motley::ops {
namespace {

constexpr int64_t kTokensPerTask = 64;
// The parameters' gradients are added up in this many parts at most, in order, however many threads there
// are: the same bits for any number of threads.
constexpr int64_t kMaxParts = 32;

// What one choice adds: x_scale * x + v_scale * v.
struct Term {
  int64_t choice;
  int64_t constant;  // index among the constant experts, -1 for a copy
  float weight;
  float a1, a2;  // of Eq. 5; 1 and 0 for a copy
};

float dot(const float* a, const float* b, int64_t size) {
  float partial[16] = {};  // lanes, so that the sum vectorises in one fixed order
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) {
    for (int64_t lane = 0; lane < 16; ++lane) {
      partial[lane] += a[i + lane] * b[i + lane];
    }
  }
  for (; i < size; ++i) {
    partial[i % 16] += a[i] * b[i];
  }
  float sum = 0;
  for (const float value : partial) {
    sum += value;
  }
  return sum;
}

void add_scaled(float* out, float scale, const float* in, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    out[i] += scale * in[i];
  }
}

class Experts {
 public:
  Experts(int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
          const OptionalTensor& constant_gate, int64_t width)
      : first_slot_(num_experts),
        width_(width),
        vectors_(constant.has_value() ? constant->const_data_ptr<float>() : nullptr),
        gates_(constant_gate.has_value() ? constant_gate->const_data_ptr<float>() : nullptr) {
    for (const int64_t kind : kinds) {
      kinds_.push_back(static_cast<ZeroExpertKind>(kind));
      constant_of_.push_back(kinds_.back() == ZeroExpertKind::kConstant ? num_constant_++ : -1);
    }
  }

  int64_t num_constant() const { return num_constant_; }
  const float* vector(int64_t constant) const { return vectors_ + constant * width_; }
  const float* gate(int64_t constant, int64_t row) const { return gates_ + (constant * 2 + row) * width_; }

  // The terms of a token in the order of its choices; those that add nothing have none.
  void terms(const int32_t* slots, const float* weights, int64_t top_k, const float* x,
             std::vector<Term>& terms) const {
    terms.clear();
    for (int64_t k = 0; k < top_k; ++k) {
      const int64_t index = slots[k] - first_slot_;
      if (index < 0 || kinds_[index] == ZeroExpertKind::kZero) {
        continue;
      }
      const int64_t constant = constant_of_[index];
      Term term{.choice = k, .constant = constant, .weight = weights[k], .a1 = 1, .a2 = 0};
      if (constant >= 0) {
        // [a1, a2] = softmax(W_c x) (Eq. 5) of two logits is a sigmoid of their difference.
        const float difference = dot(gate(constant, 1), x, width_) - dot(gate(constant, 0), x, width_);
        term.a1 = 1 / (1 + std::exp(difference));
        term.a2 = 1 / (1 + std::exp(-difference));
      }
      terms.push_back(term);
    }
  }

 private:
  int64_t first_slot_, width_;
  const float* vectors_;
  const float* gates_;
  int64_t num_constant_ = 0;
  std::vector<ZeroExpertKind> kinds_;
  std::vector<int64_t> constant_of_;
};

// A token's x in fp32.
class TokenReader {
 public:
  explicit TokenReader(const at::Tensor& x) : x_(x), buffer_(x.scalar_type() == at::kFloat ? 0 : x.size(1)) {}

  const float* read(int64_t token) {
    const int64_t width = x_.size(1);
    if (x_.scalar_type() == at::kFloat) {
      return x_.const_data_ptr<float>() + token * width;
    }
    const at::BFloat16* from = x_.const_data_ptr<at::BFloat16>() + token * width;
    std::copy(from, from + width, buffer_.begin());
    return buffer_.data();
  }

 private:
  const at::Tensor& x_;
  std::vector<float> buffer_;
};

at::Tensor zero_experts_forward(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                                int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
                                const OptionalTensor& constant_gate) {
  const int64_t num_tokens = x.size(0), width = x.size(1), top_k = slots.size(1);
  const Experts experts(num_experts, kinds, constant, constant_gate, width);
  auto y = at::empty({num_tokens, width}, x.options().dtype(at::kFloat));
  float* out = y.mutable_data_ptr<float>();
  const int32_t* slot = slots.const_data_ptr<int32_t>();
  const float* weight = weights.const_data_ptr<float>();

  at::parallel_for(0, num_tokens, kTokensPerTask, [&](int64_t begin, int64_t end) {
    TokenReader reader(x);
    std::vector<Term> terms;
    for (int64_t t = begin; t < end; ++t) {
      const float* x_t = reader.read(t);
      float* y_t = out + t * width;
      std::fill_n(y_t, width, 0.0F);
      experts.terms(slot + t * top_k, weight + t * top_k, top_k, x_t, terms);
      for (const Term& term : terms) {
        add_scaled(y_t, term.weight * term.a1, x_t, width);
        if (term.constant >= 0) {
          add_scaled(y_t, term.weight * term.a2, experts.vector(term.constant), width);
        }
      }
    }
  });
  return y;
}

// Gradients of the parameters from some of the tokens. The two rows of a constant gate get opposite
// gradients (softmax of two), so one is kept.
struct ParameterPart {
  std::vector<float> constant, gate;  // [Z_constant, D] each
};

// Adds a token's gradients to dx [D], dweights [K] and the parameters'.
void token_backward(const Experts& experts, const std::vector<Term>& terms, const float* dy, const float* x,
                    int64_t width, float* dx, float* dweights, ParameterPart& part) {
  const float dy_x = terms.empty() ? 0 : dot(dy, x, width);
  for (const Term& term : terms) {
    add_scaled(dx, term.weight * term.a1, dy, width);
    if (term.constant < 0) {
      dweights[term.choice] = dy_x;
      continue;
    }
    const float dy_v = dot(dy, experts.vector(term.constant), width);
    dweights[term.choice] = term.a1 * dy_x + term.a2 * dy_v;
    // d(a1)/d(logit 0) = a1 a2 = -d(a2)/d(logit 0).
    const float dlogit = term.weight * term.a1 * term.a2 * (dy_x - dy_v);
    add_scaled(dx, dlogit, experts.gate(term.constant, 0), width);
    add_scaled(dx, -dlogit, experts.gate(term.constant, 1), width);
    add_scaled(part.constant.data() + term.constant * width, term.weight * term.a2, dy, width);
    add_scaled(part.gate.data() + term.constant * width, dlogit, x, width);
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> zero_experts_backward(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
    int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
    const OptionalTensor& constant_gate) {
  const int64_t num_tokens = x.size(0), width = x.size(1), top_k = slots.size(1);
  const Experts experts(num_experts, kinds, constant, constant_gate, width);
  const int64_t num_constant = experts.num_constant();
  const auto options = x.options().dtype(at::kFloat);
  auto dx = at::empty({num_tokens, width}, x.options());
  auto dweights = at::zeros({num_tokens, top_k}, options);
  float* dweight = dweights.mutable_data_ptr<float>();
  const float* gradient = dy.const_data_ptr<float>();
  const int32_t* slot = slots.const_data_ptr<int32_t>();
  const float* weight = weights.const_data_ptr<float>();

  const int64_t part_size = std::max(kTokensPerTask, (num_tokens + kMaxParts - 1) / kMaxParts);
  std::vector<ParameterPart> parts((num_tokens + part_size - 1) / part_size);
  at::parallel_for(0, static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    TokenReader reader(x);
    std::vector<Term> terms;
    std::vector<float> dx_t(width);
    for (int64_t p = begin; p < end; ++p) {
      parts[p] = {std::vector<float>(num_constant * width), std::vector<float>(num_constant * width)};
      for (int64_t t = p * part_size; t < std::min((p + 1) * part_size, num_tokens); ++t) {
        const float* x_t = reader.read(t);
        experts.terms(slot + t * top_k, weight + t * top_k, top_k, x_t, terms);
        std::ranges::fill(dx_t, 0.0F);
        token_backward(experts, terms, gradient + t * width, x_t, width, dx_t.data(), dweight + t * top_k,
                       parts[p]);
        if (x.scalar_type() == at::kFloat) {
          std::ranges::copy(dx_t, dx.mutable_data_ptr<float>() + t * width);
        } else {
          std::ranges::copy(dx_t, dx.mutable_data_ptr<at::BFloat16>() + t * width);
        }
      }
    }
  });

  auto dconstant = at::zeros({num_constant, width}, options);
  auto dgate = at::zeros({num_constant, 2, width}, options);
  float* dv = dconstant.mutable_data_ptr<float>();
  float* dg = dgate.mutable_data_ptr<float>();
  for (const ParameterPart& part : parts) {
    add_scaled(dv, 1, part.constant.data(), num_constant * width);
    for (int64_t c = 0; c < num_constant; ++c) {
      add_scaled(dg + c * 2 * width, 1, part.gate.data() + c * width, width);
      add_scaled(dg + (c * 2 + 1) * width, -1, part.gate.data() + c * width, width);
    }
  }
  return {dx, dweights, dconstant, dgate};
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) {
  m.impl("zero_experts", TORCH_FN(zero_experts_forward));
  m.impl("zero_experts_backward", TORCH_FN(zero_experts_backward));
}

}  // namespace motley::ops
