#include "motley/ops/zero_experts_cuda.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "motley/ops/cuda_tensors.h"
#include "motley/ops/zero_experts.h"

namespace motley::ops {

cuda::ZeroExpertLayer cuda_zero_experts(const at::Tensor& x, const at::Tensor& slots,
                                        const at::Tensor& weights, int64_t num_experts, at::IntArrayRef kinds,
                                        const OptionalTensor& constant, const OptionalTensor& constant_gate) {
  TORCH_CHECK(kinds.size() <= cuda::kMaxZeroExperts, "[zero_experts] expected at most ",
              cuda::kMaxZeroExperts, " zero-computation experts on a GPU, got ", kinds.size());
  const auto data = [](const OptionalTensor& tensor) { return tensor ? tensor->const_data_ptr() : nullptr; };
  cuda::ZeroExpertLayer layer{
      .x = x.const_data_ptr(),
      .element = element_of(x.scalar_type()),
      .slots = integers(slots),
      .weights = weights.const_data_ptr<float>(),
      .num_tokens = static_cast<int>(x.size(0)),
      .top_k = static_cast<int>(slots.size(1)),
      .width = static_cast<int>(x.size(1)),
      .first_slot = static_cast<int>(num_experts),
      .num_experts = static_cast<int>(kinds.size()),
      .num_constant = 0,
      .parameters = constant ? element_of(constant->scalar_type()) : cuda::Element::kFloat32,
      .constant = data(constant),
      .constant_gate = data(constant_gate),
      .gives = {}};
  for (size_t i = 0; i < kinds.size(); ++i) {
    const auto kind = static_cast<ZeroExpertKind>(kinds[i]);
    layer.gives[i] = kind == ZeroExpertKind::kZero   ? cuda::kGivesNothing
                     : kind == ZeroExpertKind::kCopy ? cuda::kGivesX
                                                     : static_cast<short>(layer.num_constant++);
  }
  return layer;
}

namespace {

at::Tensor zero_experts_cuda(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                             int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
                             const OptionalTensor& constant_gate) {
  const c10::cuda::CUDAGuard guard(x.device());
  const auto layer = cuda_zero_experts(x, slots, weights, num_experts, kinds, constant, constant_gate);
  at::Tensor y = at::empty(x.sizes(), x.options().dtype(at::kFloat));
  cuda::zero_experts(layer, {.y = y.mutable_data_ptr(), .y_fp32 = true}, current_stream());
  return y;
}

at::Tensor token_sum_with_zero_experts_cuda(const at::Tensor& rows, const at::Tensor& token_rows,
                                            const at::Tensor& x, const at::Tensor& slots,
                                            const at::Tensor& weights, int64_t num_experts,
                                            at::IntArrayRef kinds, const OptionalTensor& constant,
                                            const OptionalTensor& constant_gate, at::ScalarType out_dtype) {
  const c10::cuda::CUDAGuard guard(x.device());
  const auto layer = cuda_zero_experts(x, slots, weights, num_experts, kinds, constant, constant_gate);
  at::Tensor y = at::empty(x.sizes(), x.options().dtype(out_dtype));
  cuda::zero_experts(
      layer, {rows.const_data_ptr(), integers(token_rows), y.mutable_data_ptr(), out_dtype == at::kFloat},
      current_stream());
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> zero_experts_backward_cuda(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
    int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
    const OptionalTensor& constant_gate) {
  const c10::cuda::CUDAGuard guard(x.device());
  const auto layer = cuda_zero_experts(x, slots, weights, num_experts, kinds, constant, constant_gate);
  const auto options = x.options().dtype(at::kFloat);
  at::Tensor dx = at::empty(x.sizes(), x.options());
  at::Tensor dweights = at::empty(weights.sizes(), options);
  at::Tensor dconstant = at::empty({layer.num_constant, x.size(1)}, options);
  at::Tensor dconstant_gate = at::empty({layer.num_constant, 2, x.size(1)}, options);
  at::Tensor workspace = at::empty({static_cast<int64_t>(cuda::zero_experts_backward_workspace_bytes(layer))},
                                   options.dtype(at::kByte));
  cuda::zero_experts_backward(layer,
                              {dy.const_data_ptr(), dy.scalar_type() == at::kFloat, dx.mutable_data_ptr(),
                               dweights.mutable_data_ptr<float>(), dconstant.mutable_data_ptr<float>(),
                               dconstant_gate.mutable_data_ptr<float>()},
                              workspace.mutable_data_ptr(), current_stream());
  return {dx, dweights, dconstant, dconstant_gate};
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CUDA, m) {
  m.impl("zero_experts", zero_experts_cuda);
  m.impl("token_sum_with_zero_experts", token_sum_with_zero_experts_cuda);
  m.impl("zero_experts_backward", zero_experts_backward_cuda);
}

}  // namespace motley::ops
