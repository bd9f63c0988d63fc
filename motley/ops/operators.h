// Every operator of the library as the dispatcher knows it: its C++ signature and its handle. Kernels of
// all backends have exactly these signatures (the dispatcher compares them). The public functions of
// this folder's other headers call these; checks.cc stands between every caller and every backend, so
// a backend's kernel may rely on what is written here.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <tuple>

namespace motley::ops {

using OptionalTensor = std::optional<at::Tensor>;  // none is never passed as an undefined tensor
inline OptionalTensor optional(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}
// Callers from Python and the dispatcher may pass an undefined tensor for none.
inline OptionalTensor optional(const OptionalTensor& tensor) {
  return tensor.has_value() ? optional(*tensor) : std::nullopt;
}

// What a backend's kernel gets: activations (x, y, dy, rows, hidden, dhidden, activated) and integers
// are contiguous and at least 16-byte aligned, all of one dtype (x's); gate_weights contiguous fp32;
// weights of x's dtype with any stride between experts, each expert one contiguous block; biases
// contiguous, of x's dtype. expert_offset ascends from 0 to at most max_rows; place_of_expert holds
// -1 .. P - 1. Sizes agree. Any of them may be empty.

// Fresh [max_rows, out]; rows of experts that are not here and rows past the last are zeros.
using ExpertMatmul = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                                const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                                const OptionalTensor& place_of_expert, int64_t top_k, bool by_token,
                                bool transpose_weight);

// Fresh [E, D] fp32.
using ExpertSum = at::Tensor(const at::Tensor& y, const at::Tensor& expert_offset);

// Fresh [E, M, J] in x's dtype; zeros for experts without rows.
using ExpertOuter = at::Tensor(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& row_assignment,
                               const at::Tensor& expert_offset, int64_t top_k, bool x_by_token);

// Writes the rows of experts that are here into rows [max_rows, D] and hidden [max_rows, G].
using ExpertRows = void(const at::Tensor& x, const at::Tensor& row_assignment,
                        const at::Tensor& expert_offset, int64_t top_k, const at::Tensor& gate_up,
                        const at::Tensor& down, const OptionalTensor& gate_up_bias,
                        const OptionalTensor& down_bias, const OptionalTensor& place_of_expert,
                        int64_t activation, double alpha, double limit, const at::Tensor& rows,
                        const OptionalTensor& hidden);

// expert_rows and token_sum_with_zero_experts in one. CUDA only, where few tokens take one launch. The plan's
// three tensors are there, or none of them is and the plan is made of slots; slots may be absent where there
// are no kinds.
using ExpertFfnWhole = at::Tensor(const at::Tensor& x, const at::Tensor& gate_weights,
                                  const OptionalTensor& row_assignment, const OptionalTensor& expert_offset,
                                  const OptionalTensor& token_rows, const at::Tensor& gate_up,
                                  const at::Tensor& down, const OptionalTensor& gate_up_bias,
                                  const OptionalTensor& down_bias, const OptionalTensor& place_of_expert,
                                  int64_t activation, double alpha, double limit, const OptionalTensor& slots,
                                  int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
                                  const OptionalTensor& constant_gate, at::ScalarType out_dtype,
                                  const OptionalTensor& hidden);

// Fresh [T, D] in out_dtype (fp32 or rows' dtype); choices without a row (-1) add nothing.
using TokenSum = at::Tensor(const at::Tensor& rows, const OptionalTensor& gate_weights,
                            const at::Tensor& token_rows, at::ScalarType out_dtype);

// dy [T, D] in hidden's dtype. dx and dgate_weights get zeros for what no expert here contributes; rows of
// dhidden [max_rows, G] and activated [max_rows, F] of experts that are not here are left undefined. The
// gradient of `down` along with them, if it is given a place: as below.
using ExpertFfnBackwardInput = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
    const at::Tensor& dy, const at::Tensor& hidden, const at::Tensor& gate_weights,
    const at::Tensor& row_assignment, const at::Tensor& expert_offset, const at::Tensor& token_rows,
    const at::Tensor& gate_up, const at::Tensor& down, const OptionalTensor& gate_up_bias,
    const OptionalTensor& down_bias, const OptionalTensor& place_of_expert, int64_t activation, double alpha,
    double limit, const OptionalTensor& down_grad, bool accumulate);

// gate_up_grad [P, G, D] and the others by place, each contiguous, fp32 or x's dtype (each its own).
// accumulate: adds to what they hold. Otherwise overwrites all of them, with zeros at places that have no
// expert or no rows.
using ExpertFfnBackwardWeight = void(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dhidden,
                                     const at::Tensor& activated, const at::Tensor& gate_weights,
                                     const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                                     const OptionalTensor& place_of_expert, int64_t num_places, int64_t top_k,
                                     const at::Tensor& gate_up_grad, const OptionalTensor& down_grad,
                                     const OptionalTensor& gate_up_bias_grad,
                                     const OptionalTensor& down_bias_grad, bool accumulate);

// row_assignment, expert_offset, token_rows.
using MakeRoutingPlan = std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor& slots,
                                                                       int64_t num_experts);

// kinds as in ZeroExpertKind; constant [Z_constant, D] and constant_gate [Z_constant, 2, D] fp32.
using ZeroExpertsForward = at::Tensor(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                                      int64_t num_experts, at::IntArrayRef kinds,
                                      const OptionalTensor& constant, const OptionalTensor& constant_gate);

// Fresh [T, D] in out_dtype (fp32 or x's dtype). Kinds as above; constant and constant_gate of any floating
// dtype, one for both.
using TokenSumWithZeroExperts = at::Tensor(const at::Tensor& rows, const at::Tensor& token_rows,
                                           const at::Tensor& x, const at::Tensor& slots,
                                           const at::Tensor& weights, int64_t num_experts,
                                           at::IntArrayRef kinds, const OptionalTensor& constant,
                                           const OptionalTensor& constant_gate, at::ScalarType out_dtype);

// dy [T, D] fp32, on a GPU also x's dtype -> dx (x's), dweights [T, K], dconstant, dconstant_gate (fp32;
// empty without constants).
using ZeroExpertsBackward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
    int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
    const OptionalTensor& constant_gate);

// What comes after a gate's logits [T, S] fp32: slots, weights, scores, load. gate_select.h calls
// these with arguments that fit.
using GateSelect = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
    const at::Tensor& logits, const OptionalTensor& selection_bias, const OptionalTensor& token_mask,
    int64_t top_k, bool standardise, double norm_std, int64_t normalisation, at::IntArrayRef zero_slots,
    double scale);
using GateSelectBackward = at::Tensor(const at::Tensor& logits, const at::Tensor& slots,
                                      const OptionalTensor& dweights, const OptionalTensor& dscores,
                                      int64_t top_k, bool standardise, double norm_std, int64_t normalisation,
                                      at::IntArrayRef zero_slots, double scale);
using GateLogits = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& previous,
                              const OptionalTensor& residual);

template <typename Signature>
using Handle = c10::TypedOperatorHandle<Signature>;

const Handle<ExpertMatmul>& expert_matmul_operator();
const Handle<ExpertSum>& expert_sum_operator();
const Handle<ExpertOuter>& expert_outer_operator();
const Handle<ExpertRows>& expert_rows_operator();
const Handle<ExpertFfnWhole>& expert_ffn_forward_operator();
const Handle<TokenSum>& token_sum_operator();
const Handle<ExpertFfnBackwardInput>& expert_ffn_backward_input_operator();
const Handle<ExpertFfnBackwardWeight>& expert_ffn_backward_weight_operator();
const Handle<MakeRoutingPlan>& routing_plan_operator();
const Handle<ZeroExpertsForward>& zero_experts_operator();
const Handle<TokenSumWithZeroExperts>& token_sum_with_zero_experts_operator();
const Handle<ZeroExpertsBackward>& zero_experts_backward_operator();
const Handle<GateSelect>& gate_select_operator();
const Handle<GateSelectBackward>& gate_select_backward_operator();
const Handle<GateLogits>& gate_logits_operator();

}  // namespace motley::ops
