// Zero-computation experts as operators take them, and what the operators check of them.
#pragma once

#include <vector>

#include "motley/ops/checks.h"
#include "motley/ops/operators.h"
#include "motley/ops/zero_experts.h"

namespace motley::ops {

struct ZeroExpertTensors {
  std::vector<int64_t> kinds;
  OptionalTensor constant, constant_gate;

  explicit ZeroExpertTensors(const ZeroExperts& experts);
};

// In the form that kernels take: contiguous; the parameters, which are small, in fp32, or, where a kernel
// takes that too, in the tokens' dtype if they have it.
struct ZeroExpertArguments {
  at::Tensor slots, weights;
  OptionalTensor constant, constant_gate;

  // x [T, D] names the sizes.
  ZeroExpertArguments(const ArgumentChecks& check, const at::Tensor& x, const at::Tensor& slots,
                      const at::Tensor& weights, int64_t num_experts, at::IntArrayRef kinds,
                      const OptionalTensor& constant, const OptionalTensor& constant_gate, bool tokens_dtype);
};

}  // namespace motley::ops
