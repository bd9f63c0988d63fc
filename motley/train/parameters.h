// The tensors that training changes, and their gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "motley/models/causal_lm.h"

namespace motley {

struct TrainedParameter {
  std::string name;
  at::Tensor tensor;  // shared with the model
  bool decays;        // whether weight decay applies
};

// All parameters of the model in the order of visit(), from now on with gradients.
std::vector<TrainedParameter> trained_parameters(CausalLm& model);

// No decay for norms, biases and vectors, nor for stacks of them (expert biases, constants of
// zero-computation experts).
bool weight_decays(const std::string& name, int64_t dim);

// Gradients of one optimizer step, summed over its backward passes. bf16 gradients of several passes are
// added in fp32; otherwise autograd's own sums are used as they are.
class GradientSum {
 public:
  GradientSum(const std::vector<TrainedParameter>& parameters, int64_t passes);

  void add_pass();  // after each backward
  // One tensor for each parameter, undefined where nothing reached it; then empty for the next step.
  std::vector<at::Tensor> take();

 private:
  const std::vector<TrainedParameter>& parameters_;
  std::vector<at::Tensor> sums_;  // fp32; empty where autograd sums
};

// The 2-norm of all gradients together.
double global_norm(const std::vector<at::Tensor>& gradients);

// Scales the gradients so that their norm is at most max_norm (0: leaves them); norm as measured.
void clip_gradients(std::vector<at::Tensor>& gradients, double norm, double max_norm);

}  // namespace motley
