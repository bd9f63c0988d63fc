// The zero-computation experts of MoE++ (arXiv 2410.07348, Eq. 3-5), LongCat-Flash and AdaMoE in one pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "motley/ops/routing_plan.h"

namespace motley {

enum class ZeroExpertKind : int64_t {
  kZero,      // E(x) = 0 (Eq. 3)
  kCopy,      // E(x) = x (Eq. 4); LongCat's identity experts
  kConstant,  // E(x) = a1 x + a2 v, [a1, a2] = softmax(W_c x) (Eq. 5)
};

// Slots E, E+1, ... in this order.
struct ZeroExperts {
  std::vector<ZeroExpertKind> kinds;  // [Z]
  at::Tensor constant;                // v of each constant expert [Z_constant, D], or undefined
  at::Tensor constant_gate;           // W_c [Z_constant, 2, D], or undefined

  int64_t count() const { return static_cast<int64_t>(kinds.size()); }
  bool give_anything() const;  // but zeros
  int64_t num_constant() const;
};

namespace ops {

// sum over k of weights[t, k] * E_{slots[t, k] - num_experts}(x[t]) for slots >= num_experts; others
// contribute nothing. x [T, D]; slots [T, K] int32; weights [T, K] fp32. Returns [T, D] fp32, added in
// the order of the choices. Differentiable in x, weights, constant and constant_gate.
at::Tensor zero_experts(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                        int64_t num_experts, const ZeroExperts& experts);

// token_sum plus zero_experts, rounded once: nothing of size [T, D] is written but the result, in out_dtype
// (fp32 or x's). rows [max_rows, D] of x's dtype; slots are those that the plan was made of. No gradients.
at::Tensor token_sum_with_zero_experts(const at::Tensor& rows, const RoutingPlan& plan, const at::Tensor& x,
                                       const at::Tensor& slots, const at::Tensor& weights,
                                       const ZeroExperts& experts, at::ScalarType out_dtype);

}  // namespace ops
}  // namespace motley
