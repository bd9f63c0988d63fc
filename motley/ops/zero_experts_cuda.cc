#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "motley/kernels/cuda/zero_experts.h"
#include "motley/ops/cuda_tensors.h"
#include "motley/ops/zero_experts.h"

namespace motley::ops {
namespace {

const float* data_of(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr<float>() : nullptr;
}

cuda::ZeroExpertLayer layer_of(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                               int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
                               const OptionalTensor& constant_gate) {
  TORCH_CHECK(kinds.size() <= cuda::kMaxZeroExperts, "[zero_experts] expected at most ",
              cuda::kMaxZeroExperts, " zero-computation experts on a GPU, got ", kinds.size());
  cuda::ZeroExpertLayer layer{.x = x.const_data_ptr(),
                              .element = element_of(x.scalar_type()),
                              .slots = integers(slots),
                              .weights = weights.const_data_ptr<float>(),
                              .num_tokens = static_cast<int>(x.size(0)),
                              .top_k = static_cast<int>(slots.size(1)),
                              .width = static_cast<int>(x.size(1)),
                              .first_slot = static_cast<int>(num_experts),
                              .num_experts = static_cast<int>(kinds.size()),
                              .num_constant = 0,
                              .kinds = {},
                              .constant_of = {},
                              .constant = data_of(constant),
                              .constant_gate = data_of(constant_gate)};
  for (size_t i = 0; i < kinds.size(); ++i) {
    layer.kinds[i] = static_cast<cuda::ZeroExpertKind>(kinds[i]);
    const bool is_constant = layer.kinds[i] == cuda::ZeroExpertKind::kConstant;
    layer.constant_of[i] = static_cast<short>(is_constant ? layer.num_constant++ : -1);
  }
  return layer;
}

at::Tensor zero_experts_cuda(const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
                             int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
                             const OptionalTensor& constant_gate) {
  const c10::cuda::CUDAGuard guard(x.device());
  const auto layer = layer_of(x, slots, weights, num_experts, kinds, constant, constant_gate);
  at::Tensor y = at::empty(x.sizes(), x.options().dtype(at::kFloat));
  cuda::zero_experts(layer, y.mutable_data_ptr<float>(), current_stream());
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> zero_experts_backward_cuda(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& slots, const at::Tensor& weights,
    int64_t num_experts, at::IntArrayRef kinds, const OptionalTensor& constant,
    const OptionalTensor& constant_gate) {
  const c10::cuda::CUDAGuard guard(x.device());
  const auto layer = layer_of(x, slots, weights, num_experts, kinds, constant, constant_gate);
  const auto options = x.options().dtype(at::kFloat);
  at::Tensor dx = at::empty(x.sizes(), x.options());
  at::Tensor dweights = at::empty(weights.sizes(), options);
  at::Tensor dconstant = at::empty({layer.num_constant, x.size(1)}, options);
  at::Tensor dconstant_gate = at::empty({layer.num_constant, 2, x.size(1)}, options);
  at::Tensor workspace = at::empty({static_cast<int64_t>(cuda::zero_experts_backward_workspace_bytes(layer))},
                                   options.dtype(at::kByte));
  cuda::zero_experts_backward(
      layer,
      {dy.const_data_ptr<float>(), dx.mutable_data_ptr(), dweights.mutable_data_ptr<float>(),
       dconstant.mutable_data_ptr<float>(), dconstant_gate.mutable_data_ptr<float>()},
      workspace.mutable_data_ptr(), current_stream());
  return {dx, dweights, dconstant, dconstant_gate};
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CUDA, m) {
  m.impl("zero_experts", zero_experts_cuda);
  m.impl("zero_experts_backward", zero_experts_backward_cuda);
}

}  // namespace motley::ops
