// The gate after its logits on CPU, in one pass over the tokens.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "motley/kernels/cpu/simd.h"
#include "motley/ops/gate_select.h"
#include "motley/ops/operators.h"

namespace motley::ops {
namespace {

using Vector = kernels::Simd<4>;
constexpr int64_t kLanes = 4;
constexpr float kNone = -INFINITY;  // fills the last vector of a row

// What one thread needs for a row of S slots, in whole vectors.
class Row {
 public:
  Row(int64_t num_slots, bool standardise, double norm_std)
      : size_(num_slots),
        padded_((num_slots + kLanes - 1) / kLanes * kLanes),
        standardise_(standardise),
        norm_std_(static_cast<float>(norm_std)),
        scores_(padded_) {}

  // The softmax of the logits, or of norm_std times the logits over their own standard deviation.
  const float* softmax(const float* logits) {
    scale_ = 1;
    if (standardise_) {
      measure(logits);
      scale_ = norm_std_ / (deviation_ > 0 ? deviation_ : 1);
    }
    for (int64_t i = 0; i < size_; ++i) scores_[i] = logits[i] * scale_;
    std::fill(scores_.begin() + size_, scores_.end(), kNone);
    Vector::F most = Vector::load(scores_.data());
    for (int64_t i = kLanes; i < padded_; i += kLanes) most = Vector::max(most, Vector::load(&scores_[i]));
    const float top = std::max(std::max(most[0], most[1]), std::max(most[2], most[3]));
    Vector::F sum{};
    for (int64_t i = 0; i < padded_; i += kLanes) {
      const Vector::F shifted = Vector::load(&scores_[i]) - top;
      // exp() saturates, and what is not finite must not vanish in it.
      const Vector::F power = Vector::select(shifted < -87.0f, Vector::F{}, Vector::exp(shifted));
      Vector::store(&scores_[i], power);
      sum += power;
    }
    const Vector::F inverse = Vector::set(1 / Vector::sum(sum));
    for (int64_t i = 0; i < padded_; i += kLanes) {
      Vector::store(&scores_[i], Vector::load(&scores_[i]) * inverse);
    }
    return scores_.data();
  }

  // dlogits from the gradient of what softmax() returned last.
  void softmax_backward(const float* logits, const float* dscores, float* dlogits) const {
    float dot = 0;
    for (int64_t i = 0; i < size_; ++i) dot += scores_[i] * dscores[i];
    for (int64_t i = 0; i < size_; ++i) dlogits[i] = scale_ * scores_[i] * (dscores[i] - dot);
    if (!standardise_ || !(deviation_ > 0)) return;
    // Of z = n l / s with s the deviation: dl = n/s dz - <dz, l> n/s^2 ds/dl, ds/dl = (l - mean) / ((S-1) s).
    float along = 0;
    for (int64_t i = 0; i < size_; ++i) along += dlogits[i] * logits[i];
    const float factor = along / (static_cast<float>(size_ - 1) * deviation_ * deviation_);
    for (int64_t i = 0; i < size_; ++i) dlogits[i] -= factor * (logits[i] - mean_);
  }

 private:
  void measure(const float* logits) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < size_; ++i) sum += logits[i];
    const double mean = sum / static_cast<double>(size_);
    for (int64_t i = 0; i < size_; ++i) squares += (logits[i] - mean) * (logits[i] - mean);
    mean_ = static_cast<float>(mean);
    deviation_ = static_cast<float>(std::sqrt(squares / static_cast<double>(size_ - 1)));
  }

  int64_t size_, padded_;
  bool standardise_;
  float norm_std_, scale_ = 1, mean_ = 0, deviation_ = 0;
  std::vector<float> scores_;
};

// Keeps the best so far in order; of equals the lower slot, and NaN is never better.
void choose(const float* scores, const float* bias, int64_t num_slots, int64_t top_k, int32_t* chosen,
            float* best) {
  for (int64_t slot = 0; slot < num_slots; ++slot) {
    const float score = scores[slot] + (bias != nullptr ? bias[slot] : 0.0f);
    int64_t place = std::min(slot, top_k);
    if (place == top_k) {
      if (!(score > best[top_k - 1])) continue;
      place = top_k - 1;
    }
    for (; place > 0 && score > best[place - 1]; --place) {
      best[place] = best[place - 1];
      chosen[place] = chosen[place - 1];
    }
    best[place] = score;
    chosen[place] = static_cast<int32_t>(slot);
  }
}

// From a token's chosen scores to their weights and back.
class Weighing {
 public:
  Weighing(GateNormalisation normalisation, at::IntArrayRef zero_slots, double scale)
      : normalisation_(normalisation), zero_slots_(zero_slots), scale_(static_cast<float>(scale)) {}

  void weigh(const float* scores, const int32_t* slots, int64_t top_k, float* weights) const {
    for (int64_t k = 0; k < top_k; ++k) weights[k] = counts(slots[k]) ? scores[slots[k]] : 0;
    const float factor = scale_ * inverse_sum(weights, top_k);
    for (int64_t k = 0; k < top_k; ++k) weights[k] *= factor;
  }

  // Adds to dscores [S]; weights is scratch of K.
  void backward(const float* scores, const int32_t* slots, const float* dweights, int64_t top_k,
                float* weights, float* dscores) const {
    for (int64_t k = 0; k < top_k; ++k) weights[k] = counts(slots[k]) ? scores[slots[k]] : 0;
    const float inverse = inverse_sum(weights, top_k);
    float mean = 0;  // of dweights, by normalised weight: what a larger sum takes from all
    if (normalisation_ != GateNormalisation::kNone && has_sum(weights, top_k)) {
      for (int64_t k = 0; k < top_k; ++k) mean += dweights[k] * weights[k] * inverse;
    }
    for (int64_t k = 0; k < top_k; ++k) {
      if (counts(slots[k])) dscores[slots[k]] += scale_ * inverse * (dweights[k] - mean);
    }
  }

 private:
  bool counts(int32_t slot) const {
    return normalisation_ != GateNormalisation::kTopKExceptZero ||
           std::find(zero_slots_.begin(), zero_slots_.end(), slot) == zero_slots_.end();
  }
  static float sum_of(const float* weights, int64_t top_k) {
    float sum = 0;
    for (int64_t k = 0; k < top_k; ++k) sum += weights[k];
    return sum;
  }
  static bool has_sum(const float* weights, int64_t top_k) { return sum_of(weights, top_k) > 0; }
  float inverse_sum(const float* weights, int64_t top_k) const {
    if (normalisation_ == GateNormalisation::kNone) return 1;
    const float sum = sum_of(weights, top_k);
    return sum > 0 ? 1 / sum : 1;
  }

  GateNormalisation normalisation_;
  at::IntArrayRef zero_slots_;
  float scale_;
};

int64_t tokens_per_task(int64_t num_slots) { return 1 + 16384 / num_slots; }

const float* floats(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr<float>() : nullptr;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> gate_select_cpu(
    const at::Tensor& logits, const OptionalTensor& selection_bias, const OptionalTensor& token_mask,
    int64_t top_k, bool standardise, double norm_std, int64_t normalisation, at::IntArrayRef zero_slots,
    double scale) {
  const int64_t num_tokens = logits.size(0), num_slots = logits.size(1);
  at::Tensor slots = at::empty({num_tokens, top_k}, logits.options().dtype(at::kInt));
  at::Tensor weights = at::empty({num_tokens, top_k}, logits.options());
  at::Tensor scores = at::empty_like(logits),
             load = at::empty({num_slots}, logits.options().dtype(at::kLong));
  const float* from = logits.const_data_ptr<float>();
  const float* bias = floats(selection_bias);
  const bool* mask = token_mask ? token_mask->const_data_ptr<bool>() : nullptr;
  int32_t* slot = slots.mutable_data_ptr<int32_t>();
  float *weight = weights.mutable_data_ptr<float>(), *score = scores.mutable_data_ptr<float>();
  const Weighing weighing(static_cast<GateNormalisation>(normalisation), zero_slots, scale);
  at::parallel_for(0, num_tokens, tokens_per_task(num_slots), [&](int64_t begin, int64_t end) {
    Row row(num_slots, standardise, norm_std);
    std::vector<float> best(top_k);
    for (int64_t t = begin; t < end; ++t) {
      const float* p = row.softmax(from + t * num_slots);
      std::copy(p, p + num_slots, score + t * num_slots);
      if (mask != nullptr && !mask[t]) {
        std::fill_n(slot + t * top_k, top_k, -1);
        std::fill_n(weight + t * top_k, top_k, 0.0f);
        continue;
      }
      choose(p, bias, num_slots, top_k, slot + t * top_k, best.data());
      weighing.weigh(p, slot + t * top_k, top_k, weight + t * top_k);
    }
  });
  std::vector<int64_t> counts(num_slots, 0);
  for (int64_t a = 0; a < num_tokens * top_k; ++a) {
    if (slot[a] >= 0) ++counts[slot[a]];
  }
  std::copy(counts.begin(), counts.end(), load.mutable_data_ptr<int64_t>());
  return {slots, weights, scores, load};
}

at::Tensor gate_select_backward_cpu(const at::Tensor& logits, const at::Tensor& slots,
                                    const OptionalTensor& dweights, const OptionalTensor& dscores,
                                    int64_t top_k, bool standardise, double norm_std, int64_t normalisation,
                                    at::IntArrayRef zero_slots, double scale) {
  const int64_t num_tokens = logits.size(0), num_slots = logits.size(1);
  at::Tensor dlogits = at::empty_like(logits);
  const float* from = logits.const_data_ptr<float>();
  const int32_t* slot = slots.const_data_ptr<int32_t>();
  const float *dweight = floats(dweights), *dscore = floats(dscores);
  float* to = dlogits.mutable_data_ptr<float>();
  const Weighing weighing(static_cast<GateNormalisation>(normalisation), zero_slots, scale);
  at::parallel_for(0, num_tokens, tokens_per_task(num_slots), [&](int64_t begin, int64_t end) {
    Row row(num_slots, standardise, norm_std);
    std::vector<float> weights(top_k), sum(num_slots);
    for (int64_t t = begin; t < end; ++t) {
      const float* p = row.softmax(from + t * num_slots);
      if (dscore != nullptr) {
        std::copy_n(dscore + t * num_slots, num_slots, sum.begin());
      } else {
        std::fill(sum.begin(), sum.end(), 0.0f);
      }
      if (dweight != nullptr && slot[t * top_k] >= 0) {
        weighing.backward(p, slot + t * top_k, dweight + t * top_k, top_k, weights.data(), sum.data());
      }
      row.softmax_backward(from + t * num_slots, sum.data(), to + t * num_slots);
    }
  });
  return dlogits;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) {
  m.impl("gate_select", TORCH_FN(gate_select_cpu));
  m.impl("gate_select_backward", TORCH_FN(gate_select_backward_cpu));
}

}  // namespace motley::ops
