#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "motley/kernels/cuda/gate.h"
#include "motley/ops/cuda_tensors.h"

namespace motley::ops {
namespace {

cuda::GateRule rule_of(const at::Tensor& logits, int64_t top_k, bool standardise, double norm_std,
                       int64_t normalisation, at::IntArrayRef zero_slots, double scale) {
  cuda::GateRule rule{.num_slots = static_cast<int>(logits.size(1)),
                      .top_k = static_cast<int>(top_k),
                      .standardise = standardise,
                      .norm_std = static_cast<float>(norm_std),
                      .normalisation = static_cast<cuda::GateNormalisation>(normalisation),
                      .scale = static_cast<float>(scale),
                      .is_zero = {}};
  for (const int64_t slot : zero_slots) rule.is_zero[slot / 32] |= 1u << slot % 32;
  return rule;
}

const float* floats(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr<float>() : nullptr;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> gate_select_cuda(
    const at::Tensor& logits, const OptionalTensor& selection_bias, const OptionalTensor& token_mask,
    int64_t top_k, bool standardise, double norm_std, int64_t normalisation, at::IntArrayRef zero_slots,
    double scale) {
  const c10::cuda::CUDAGuard guard(logits.device());
  const int64_t num_tokens = logits.size(0);
  at::Tensor slots = at::empty({num_tokens, top_k}, logits.options().dtype(at::kInt));
  at::Tensor weights = at::empty({num_tokens, top_k}, logits.options());
  at::Tensor scores = at::empty_like(logits);
  at::Tensor load = at::empty({logits.size(1)}, logits.options().dtype(at::kLong));
  cuda::select_slots(rule_of(logits, top_k, standardise, norm_std, normalisation, zero_slots, scale),
                     {.logits = logits.const_data_ptr<float>(),
                      .selection_bias = floats(selection_bias),
                      .token_mask = token_mask ? token_mask->const_data_ptr<bool>() : nullptr,
                      .num_tokens = static_cast<int>(num_tokens),
                      .slots = slots.mutable_data_ptr<int32_t>(),
                      .weights = weights.mutable_data_ptr<float>(),
                      .scores = scores.mutable_data_ptr<float>(),
                      .load = reinterpret_cast<unsigned long long*>(load.mutable_data_ptr<int64_t>())},
                     current_stream());
  return {slots, weights, scores, load};
}

at::Tensor gate_select_backward_cuda(const at::Tensor& logits, const at::Tensor& slots,
                                     const OptionalTensor& dweights, const OptionalTensor& dscores,
                                     int64_t top_k, bool standardise, double norm_std, int64_t normalisation,
                                     at::IntArrayRef zero_slots, double scale) {
  const c10::cuda::CUDAGuard guard(logits.device());
  at::Tensor dlogits = at::empty_like(logits);
  cuda::select_slots_backward(rule_of(logits, top_k, standardise, norm_std, normalisation, zero_slots, scale),
                              {.logits = logits.const_data_ptr<float>(),
                               .slots = integers(slots),
                               .dweights = floats(dweights),
                               .dscores = floats(dscores),
                               .num_tokens = static_cast<int>(logits.size(0)),
                               .dlogits = dlogits.mutable_data_ptr<float>()},
                              current_stream());
  return dlogits;
}

at::Tensor gate_logits_cuda(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& previous,
                            const OptionalTensor& residual) {
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor logits = at::empty({x.size(0), weight.size(0)}, x.options().dtype(at::kFloat));
  cuda::gate_logits(x.const_data_ptr(), element_of(x.scalar_type()), weight.const_data_ptr(),
                    element_of(weight.scalar_type()), floats(previous),
                    residual ? residual->const_data_ptr() : nullptr, static_cast<int>(x.size(0)),
                    static_cast<int>(x.size(1)), static_cast<int>(weight.size(0)),
                    logits.mutable_data_ptr<float>(), current_stream());
  return logits;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CUDA, m) {
  m.impl("gate_select", gate_select_cuda);
  m.impl("gate_select_backward", gate_select_backward_cuda);
  m.impl("gate_logits", gate_logits_cuda);
}

}  // namespace motley::ops
