#include "motley/layers/zero_expert_parameters.h"

#include <ATen/ops/zeros.h>

#include "motley/ops/part.h"

namespace motley {

ZeroExperts make_zero_experts(const std::vector<ZeroExpertKind>& kinds, int64_t hidden_size,
                              at::ScalarType dtype) {
  ZeroExperts experts;
  experts.kinds = kinds;
  const int64_t num_constant = experts.num_constant();
  if (num_constant == 0) return experts;
  experts.constant = at::zeros({num_constant, hidden_size}, dtype);
  experts.constant_gate = at::zeros({num_constant, 2, hidden_size}, dtype);
  return experts;
}

at::Tensor zero_expert_part(const at::Tensor& x, const Routing& routing, int64_t num_experts,
                            const ZeroExperts& experts) {
  if (!experts.give_anything()) return {};
  const Part part("zero-computation experts");
  return ops::zero_experts(x, routing.slots, routing.weights, num_experts, experts);
}

void visit_zero_experts(const std::string& prefix, const TensorVisitor& visitor, ZeroExperts& experts) {
  if (!experts.constant.defined()) return;
  visitor(prefix + "constant", experts.constant, TensorRole::kParameter);
  visitor(prefix + "constant_gate", experts.constant_gate, TensorRole::kParameter);
}

}  // namespace motley
