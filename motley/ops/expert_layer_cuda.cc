#include "motley/ops/expert_layer_cuda.h"

#include <algorithm>

namespace motley::ops {
namespace {

constexpr int64_t kVector = 8;  // elements of 16 bytes

cuda::PlacedWeights placed(const at::Tensor& weight) { return {weight.const_data_ptr(), weight.stride(0)}; }

cuda::PlacedBias placed(const OptionalTensor& bias) {
  return bias ? cuda::PlacedBias{bias->const_data_ptr(), bias->size(1)} : cuda::PlacedBias{};
}

}  // namespace

bool fast_kernels_take(at::ScalarType dtype, int64_t num_experts, std::initializer_list<int64_t> widths) {
  return (dtype == at::kBFloat16 || dtype == at::kHalf || dtype == at::kFloat) && num_experts > 0 &&
         num_experts <= cuda::kMaxExperts &&
         std::ranges::all_of(widths, [](int64_t width) { return width > 0 && width % kVector == 0; });
}

bool fast_kernels_read(const at::Tensor& weight) {
  return reinterpret_cast<uintptr_t>(weight.const_data_ptr()) % 16 == 0 && weight.stride(0) % kVector == 0;
}

cuda::DataType data_type_of(at::ScalarType dtype) {
  return dtype == at::kFloat  ? cuda::DataType::kFp32
         : dtype == at::kHalf ? cuda::DataType::kFp16
                              : cuda::DataType::kBf16;
}

cuda::Activation activation_of(int64_t kind, double alpha, double limit) {
  static_assert(static_cast<int>(ActivationKind::kSwiGlu) ==
                    static_cast<int>(cuda::ActivationKind::kSwiGlu) &&
                static_cast<int>(ActivationKind::kSilu) == static_cast<int>(cuda::ActivationKind::kSilu));
  return {static_cast<cuda::ActivationKind>(kind), static_cast<float>(alpha), static_cast<float>(limit)};
}

bool CudaExperts::fast() const {
  return fast_kernels_take(down.scalar_type(), num_experts(), {model_width(), expert_width()}) &&
         fast_kernels_read(gate_up) && fast_kernels_read(down);
}

cuda::ExpertLayer CudaExperts::layer(const cuda::TileSchedule& schedule, const int* token_rows) const {
  const auto type = data_type_of(down.scalar_type());
  return {.family = cuda::default_family(type),
          .shape = {static_cast<int>(num_tokens), static_cast<int>(top_k), static_cast<int>(num_experts()),
                    static_cast<int>(down.size(0)), static_cast<int>(model_width()),
                    static_cast<int>(expert_width()), static_cast<int>(max_rows()), type},
          .plan = {integers(row_assignment), integers(expert_offset), integers(place_of_expert), schedule},
          .token_rows = token_rows,
          .activation = activation,
          .gate_up = placed(gate_up),
          .down = placed(down),
          .gate_up_bias = placed(gate_up_bias),
          .down_bias = placed(down_bias)};
}

}  // namespace motley::ops
