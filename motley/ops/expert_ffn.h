// The feed-forward of routed experts over the rows of a RoutingPlan: the expert-specific operators of
// HEXA-MoE (arXiv 2411.01288, section 3.2) with gather, activation and weighted sum fused in.
// T tokens, D model width, F expert width, K choices, N rows. x is fp32 or bf16 on CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "motley/ops/expert_weights.h"
#include "motley/ops/routing_plan.h"
#include "motley/ops/zero_experts.h"

namespace motley::ops {

// y[row] = x[row's token] W_e^T (+ bias), or x[..] W_e with transpose_weight = false.
// x is by token [T, K_in] (by_token) or by row [max_rows, K_in]; weight [P, out, in] (or [P, in, out]).
// Returns [max_rows, out] in x's dtype; rows of experts that are not here are left as zeros.
at::Tensor expert_matmul(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                         const RoutingPlan& plan, const std::optional<at::Tensor>& place_of_expert,
                         bool by_token, bool transpose_weight = true);

// out[e] = sum of the rows of expert e: y [max_rows, D] -> [E, D] fp32.
at::Tensor expert_sum(const at::Tensor& y, const RoutingPlan& plan);

// out[e] = dy_e^T x_e: dy by row [max_rows, M], x by token [T, J] or by row -> [E, M, J] in x's dtype;
// experts without rows give zeros.
at::Tensor expert_outer(const at::Tensor& dy, const at::Tensor& x, const RoutingPlan& plan, bool x_by_token);

// Unweighted output rows of the experts that are here, written into rows [max_rows, D] (x's dtype);
// other rows are left alone. hidden, if defined, receives H [max_rows, G], the first product before
// the activation, in x's dtype.
void expert_rows(const at::Tensor& x, const RoutingPlan& plan, const ExpertWeights& weights, at::Tensor rows,
                 at::Tensor hidden = {});

// Rows and their sum in one operator, which GPUs have: y [T, D] in out_dtype; hidden as expert_rows has it.
struct ChosenZeroExperts;
at::Tensor expert_ffn_forward(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                              const ExpertWeights& weights, at::ScalarType out_dtype,
                              const at::Tensor& hidden, const ChosenZeroExperts& zero_experts);

// y[t] = sum over k, in order, of gate_weights[t, k] * rows[token_rows[t, k]], added in fp32 and rounded
// once to out_dtype (rows' dtype when not given). gate_weights [T, K] fp32, or undefined for ones.
at::Tensor token_sum(const at::Tensor& rows, const at::Tensor& gate_weights, const RoutingPlan& plan,
                     std::optional<at::ScalarType> out_dtype = {});

// expert_rows and token_sum with one reused scratch. Differentiable in x and gate_weights; gradients of
// the weights go to `source`. Keeps x, H, plan and gate_weights for backward, nothing of size N x D and
// no weights. Throws c10::Error naming the argument, what was expected and what was found.
at::Tensor expert_ffn(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                      std::shared_ptr<WeightSource> source, std::optional<at::ScalarType> out_dtype = {});

// The same over weights given as tensors; differentiable in them too.
at::Tensor expert_ffn(const at::Tensor& x, const at::Tensor& gate_weights, const RoutingPlan& plan,
                      const ExpertWeights& weights, std::optional<at::ScalarType> out_dtype = {});

// expert_ffn and zero_experts of the same choices, added in fp32 and rounded once. slots [T, K] are those
// that the plan was made of. Differentiable in the constant experts' parameters, too; keeps slots beside what
// expert_ffn keeps.
at::Tensor expert_ffn_with_zero_experts(const at::Tensor& x, const at::Tensor& slots,
                                        const at::Tensor& gate_weights, const RoutingPlan& plan,
                                        std::shared_ptr<WeightSource> source, const ZeroExperts& zero_experts,
                                        std::optional<at::ScalarType> out_dtype = {});

// The same from the choices alone, on a GPU in inference: a few tokens then take a single launch, as in
// expert_ffn.
at::Tensor expert_ffn_from_slots(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& gate_weights,
                                 int64_t num_experts, const ExpertWeights& weights,
                                 const ZeroExperts& zero_experts,
                                 std::optional<at::ScalarType> out_dtype = {});

struct ExpertFfnInputGradients {
  at::Tensor dx;             // [T, D] in x's dtype
  at::Tensor dgate_weights;  // [T, K] fp32: <dY W_down^T, A> + <dY, b_down>
  at::Tensor dhidden;        // [max_rows, G]: what _weight needs, in x's dtype
  at::Tensor activated;      // [max_rows, F]: gate weight times A, what _weight needs, in x's dtype
};
// Backward of one wave: input gradients first. dx and dgate_weights of several waves add up.
ExpertFfnInputGradients expert_ffn_backward_input(const at::Tensor& dy, const at::Tensor& hidden,
                                                  const at::Tensor& gate_weights, const RoutingPlan& plan,
                                                  const ExpertWeights& weights);
// Weight gradients, which may be computed later. Adds into `into`'s tensors where they are defined
// (fp32 or the weights' dtype), else returns fresh ones in the weights' dtype.
ExpertWeightGradients expert_ffn_backward_weight(const at::Tensor& dy, const at::Tensor& x,
                                                 const ExpertFfnInputGradients& input,
                                                 const at::Tensor& gate_weights, const RoutingPlan& plan,
                                                 const ExpertWeights& weights,
                                                 const ExpertWeightGradients& into = {});
// Both at once. On a GPU the gradient of `down` is taken with the input gradients, because they read the
// same rows of dy.
struct ExpertFfnBackward {
  ExpertFfnInputGradients input;
  ExpertWeightGradients weights;
};
ExpertFfnBackward expert_ffn_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& hidden,
                                      const at::Tensor& gate_weights, const RoutingPlan& plan,
                                      const ExpertWeights& weights, const ExpertWeightGradients& into = {});

}  // namespace motley::ops
