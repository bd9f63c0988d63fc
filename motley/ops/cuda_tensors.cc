#include "motley/ops/cuda_tensors.h"

#include <ATen/ops/empty.h>

#include "motley/kernels/cuda/expert_layer.h"

namespace motley::ops {

cuda::Element element_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return cuda::Element::kFloat32;
    case at::kBFloat16:
      return cuda::Element::kBFloat16;
    case at::kHalf:
      return cuda::Element::kFloat16;
    default:
      TORCH_INTERNAL_ASSERT(false, "no CUDA kernel takes ", dtype);
  }
}

at::Tensor scratch(size_t bytes, const at::Tensor& like) {
  return at::empty({static_cast<int64_t>(bytes)}, like.options().dtype(at::kByte));
}

DeviceSchedule::DeviceSchedule(const at::Tensor& expert_offset, const OptionalTensor& place_of_expert,
                               int64_t max_rows) {
  const int num_experts = static_cast<int>(expert_offset.size(0) - 1);
  const int rows = static_cast<int>(max_rows);
  max_tiles_ = num_experts == 0 ? 0 : cuda::max_row_tiles(rows, num_experts);
  memory_ = scratch(cuda::tile_schedule_bytes(rows, num_experts), expert_offset);
  schedule_ = cuda::take_tile_schedule(rows, num_experts, memory_.mutable_data_ptr());
  if (max_tiles_ > 0) {
    cuda::tile_schedule(integers(expert_offset), num_experts, integers(place_of_expert), schedule_,
                        current_stream());
  }
}

cuda::plain::Rows plain_rows(const at::Tensor& data, const at::Tensor& row_assignment, int64_t top_k,
                             bool by_token) {
  return {data.const_data_ptr(), element_of(data.scalar_type()), data.size(1),
          by_token ? integers(row_assignment) : nullptr, static_cast<int>(top_k)};
}

cuda::plain::Weights plain_weights(const at::Tensor& weight, const OptionalTensor& bias, bool transposed) {
  return {weight.const_data_ptr(), weight.stride(0), transposed ? 1 : weight.size(2),
          transposed ? weight.size(2) : 1, bias ? bias->const_data_ptr() : nullptr};
}

cuda::plain::Output plain_output(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr(), element_of(tensor.scalar_type())};
}

cuda::plain::Places plain_places(const at::Tensor& expert_offset, const OptionalTensor& place_of_expert) {
  return {integers(expert_offset), integers(place_of_expert), static_cast<int>(expert_offset.size(0) - 1)};
}

}  // namespace motley::ops
