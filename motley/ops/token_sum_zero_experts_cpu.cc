#include "motley/ops/token_sum_zero_experts.h"

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>

#include "motley/kernels/cpu/families.h"
#include "motley/ops/checks.h"
#include "motley/ops/tasks_cpu.h"

namespace motley::ops {
namespace {

// The vectors of a token's sum and their weights, x at most once.
struct Terms {
  const void** vectors;
  float* weights;
  int64_t count = 0;
  float of_x = 0;

  void add(const void* vector, float weight) {
    vectors[count] = vector;
    weights[count++] = weight;
  }
};

// The zero-computation experts in the dtype of the tokens.
class Constants {
 public:
  Constants(const ZeroExperts& experts, at::ScalarType dtype)
      : constant_(of_dtype(experts.constant, dtype)), gate_(of_dtype(experts.constant_gate, dtype)) {
    for (const ZeroExpertKind kind : experts.kinds) {
      index_.push_back(kind == ZeroExpertKind::kConstant ? count_++
                       : kind == ZeroExpertKind::kCopy   ? kCopy
                                                         : kZero);
    }
  }

  void add(int64_t expert, float weight, const void* x, kernels::DType type, int64_t width,
           Terms& terms) const {
    const int64_t index = index_[expert];
    if (index == kZero) return;
    if (index == kCopy) {
      terms.of_x += weight;
      return;
    }
    float logits[2];
    const void* gate = kernels::offset(gate_.const_data_ptr(), type, index * 2 * width);
    kernels::cpu_kernels().dot_rows(type, &x, 1, gate, width, 2, width, logits, 2);
    // [a1, a2] = softmax(W_c x) (Eq. 5)
    const float a2 = 1 / (1 + std::exp(logits[0] - logits[1]));
    terms.of_x += weight / (1 + std::exp(logits[1] - logits[0]));
    terms.add(kernels::offset(constant_.const_data_ptr(), type, index * width), weight * a2);
  }

 private:
  static constexpr int64_t kZero = -2, kCopy = -1;

  static at::Tensor of_dtype(const at::Tensor& tensor, at::ScalarType dtype) {
    return tensor.defined() ? tensor.to(dtype).contiguous() : tensor;
  }

  at::Tensor constant_, gate_;
  std::vector<int64_t> index_;
  int64_t count_ = 0;
};

}  // namespace

at::Tensor token_sum_with_zero_experts(const at::Tensor& rows, const RoutingPlan& plan,
                                       const at::Tensor& x_in, const at::Tensor& slots_in,
                                       const at::Tensor& weights_in, const ZeroExperts& experts) {
  const at::Tensor x = dense(x_in), slots = dense(slots_in), weights = dense(weights_in);
  const int64_t tokens = x.size(0), width = x.size(1), top_k = slots.size(1),
                num_experts = plan.num_experts();
  TORCH_CHECK(
      x.is_cpu() && rows.scalar_type() == x.scalar_type() && rows.size(1) == width &&
          plan.token_rows.sizes() == slots.sizes() && weights.sizes() == slots.sizes(),
      "[token_sum_with_zero_experts] expected rows and x [.., D] of one dtype and slots and weights [T, K], "
      "got ",
      rows.sizes(), ", ", x.sizes(), ", ", slots.sizes(), ", ", weights.sizes());
  at::Tensor y = at::empty_like(x);
  const auto& cpu = kernels::cpu_kernels();
  const kernels::DType type = kernel_type(x.scalar_type());
  const Constants constants(experts, x.scalar_type());
  const auto* row_of = plan.token_rows.const_data_ptr<int32_t>();
  const auto* slot = slots.const_data_ptr<int32_t>();
  const auto* weight = weights.const_data_ptr<float>();
  constexpr int64_t kTokens = 16;  // of a task
  run_tasks((tokens + kTokens - 1) / kTokens, (top_k + 1) * 16, [&](int64_t task, void* scratch) {
    auto** vectors = static_cast<const void**>(scratch);
    for (int64_t t = task * kTokens; t < std::min(tokens, (task + 1) * kTokens); ++t) {
      const void* x_t = kernels::offset(x.const_data_ptr(), type, t * width);
      Terms terms{vectors, reinterpret_cast<float*>(vectors + top_k + 1)};
      for (int64_t a = t * top_k; a < (t + 1) * top_k; ++a) {
        if (row_of[a] >= 0) {
          terms.add(kernels::offset(rows.const_data_ptr(), type, row_of[a] * width), weight[a]);
        } else if (slot[a] >= num_experts) {
          constants.add(slot[a] - num_experts, weight[a], x_t, type, width, terms);
        }
      }
      if (terms.of_x != 0) terms.add(x_t, terms.of_x);
      void* to = kernels::offset(y.mutable_data_ptr(), type, t * width);
      cpu.weighted_sum(type, terms.vectors, terms.weights, terms.count, 0, width, type, to, false);
    }
  });
  return y;
}

}  // namespace motley::ops
