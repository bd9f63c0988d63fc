// What the operators' CUDA files share: tensors as the kernels take them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "motley/kernels/cuda/plain/products.h"
#include "motley/kernels/cuda/routing_plan.h"
#include "motley/ops/operators.h"

namespace motley::ops {

cuda::Element element_of(at::ScalarType dtype);

inline cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream(); }

// Integers of a plan, or none.
inline const int* integers(const at::Tensor& tensor) { return tensor.const_data_ptr<int32_t>(); }
inline const int* integers(const OptionalTensor& tensor) { return tensor ? integers(*tensor) : nullptr; }

// Memory for kernels, on the device of `like`.
at::Tensor scratch(size_t bytes, const at::Tensor& like);

// The list of row tiles of a plan, made on the device.
class DeviceSchedule {
 public:
  DeviceSchedule(const at::Tensor& expert_offset, const OptionalTensor& place_of_expert, int64_t max_rows);
  const cuda::TileSchedule& schedule() const { return schedule_; }
  int max_tiles() const { return max_tiles_; }

 private:
  at::Tensor memory_;
  cuda::TileSchedule schedule_;
  int max_tiles_;
};

cuda::plain::Rows plain_rows(const at::Tensor& data, const at::Tensor& row_assignment, int64_t top_k,
                             bool by_token);
// weight [P, depth, columns], or [P, columns, depth] if transposed.
cuda::plain::Weights plain_weights(const at::Tensor& weight, const OptionalTensor& bias, bool transposed);
cuda::plain::Output plain_output(const at::Tensor& tensor);
cuda::plain::Places plain_places(const at::Tensor& expert_offset, const OptionalTensor& place_of_expert);

}  // namespace motley::ops
