// AdamW (arXiv 1711.05101) with fp32 moments, and fp32 master weights where the model's are bf16.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "motley/io/safetensors.h"
#include "motley/train/parameters.h"

namespace motley {

struct AdamWOptions {
  double beta1, beta2, epsilon, weight_decay;
};

class AdamW {
 public:
  AdamW(std::vector<TrainedParameter> parameters, const AdamWOptions& options);

  // One update; step counts from 1. Parameters without a gradient stay as they are.
  void step(const std::vector<at::Tensor>& gradients, double learning_rate, int64_t step);

  const std::vector<TrainedParameter>& parameters() const { return parameters_; }
  // "<parameter>.exp_avg", "<parameter>.exp_avg_sq" and, for bf16 parameters, "<parameter>.master".
  NamedTensors state() const;
  // Throws UserError naming the tensor that is missing or misshapen.
  void load(const TensorFolder& state);

 private:
  struct Moments {
    at::Tensor exp_avg, exp_avg_sq;
    at::Tensor master;  // undefined: the parameter itself is fp32 and contiguous
  };
  std::vector<TrainedParameter> parameters_;
  std::vector<Moments> moments_;
  AdamWOptions options_;
};

}  // namespace motley
