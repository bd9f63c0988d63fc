#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "motley/kernels/cpu/families.h"
#include "motley/ops/operators.h"
#include "motley/ops/tasks_cpu.h"
#include "motley/ops/zero_experts.h"

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
  Constants(at::IntArrayRef kinds, const OptionalTensor& constant, const OptionalTensor& constant_gate,
            at::ScalarType dtype) {
    if (constant) constant_ = constant->to(dtype);
    if (constant_gate) gate_ = constant_gate->to(dtype);
    for (const int64_t kind : kinds) {
      index_.push_back(kind == static_cast<int64_t>(ZeroExpertKind::kConstant) ? count_++
                       : kind == static_cast<int64_t>(ZeroExpertKind::kCopy)   ? kCopy
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
    kernels::cpu_kernels().dot_rows(type, &x, 1, {gate, width, 2, width, logits, 2});
    // [a1, a2] = softmax(W_c x) (Eq. 5)
    const float a2 = 1 / (1 + std::exp(logits[0] - logits[1]));
    terms.of_x += weight / (1 + std::exp(logits[1] - logits[0]));
    terms.add(kernels::offset(constant_.const_data_ptr(), type, index * width), weight * a2);
  }

 private:
  static constexpr int64_t kZero = -2, kCopy = -1;

  at::Tensor constant_, gate_;
  std::vector<int64_t> index_;
  int64_t count_ = 0;
};

at::Tensor token_sum_with_zero_experts_cpu(const at::Tensor& rows, const at::Tensor& token_rows,
                                           const at::Tensor& x, const at::Tensor& slots,
                                           const at::Tensor& weights, int64_t num_experts,
                                           at::IntArrayRef kinds, const OptionalTensor& constant,
                                           const OptionalTensor& constant_gate, at::ScalarType out_dtype) {
  const int64_t tokens = x.size(0), width = x.size(1), top_k = slots.size(1);
  at::Tensor y = at::empty(x.sizes(), x.options().dtype(out_dtype));
  const auto& cpu = kernels::cpu_kernels();
  const kernels::DType type = kernel_type(x.scalar_type()), out_type = kernel_type(out_dtype);
  const Constants constants(kinds, constant, constant_gate, x.scalar_type());
  const auto* row_of = token_rows.const_data_ptr<int32_t>();
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
      void* to = kernels::offset(y.mutable_data_ptr(), out_type, t * width);
      cpu.weighted_sum(type, terms.vectors, terms.weights, terms.count, 0, width, out_type, to, false);
    }
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CPU, m) { m.impl("token_sum_with_zero_experts", token_sum_with_zero_experts_cpu); }

}  // namespace motley::ops
