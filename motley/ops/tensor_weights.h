// The trivial weight source: tensors, all in one wave.
#pragma once

#include <utility>

#include "motley/ops/expert_weights.h"

namespace motley::ops {

class TensorWeights final : public WeightSource {
 public:
  explicit TensorWeights(ExpertWeights weights) : weights_(std::move(weights)) {}

  int num_waves() const override { return 1; }
  ExpertWeights acquire(int /*wave*/, Pass /*pass*/) override { return weights_; }
  bool requires_grad() const override { return true; }
  void accumulate_gradients(int /*wave*/, const ExpertWeightGradients& gradients) override {
    gradients_ = gradients;
  }

  const ExpertWeightGradients& gradients() const { return gradients_; }

 private:
  ExpertWeights weights_;
  ExpertWeightGradients gradients_;
};

}  // namespace motley::ops
