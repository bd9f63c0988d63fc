#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "motley/ops/expert_layer_cuda.h"

namespace motley::ops {
namespace {

cuda::ExpertShape shape_of(const at::Tensor& like, const at::Tensor& row_assignment,
                           const at::Tensor& expert_offset, int64_t top_k, int64_t num_places) {
  return {.num_tokens = static_cast<int>(like.size(0)),
          .top_k = static_cast<int>(top_k),
          .num_experts = static_cast<int>(expert_offset.size(0) - 1),
          .num_places = static_cast<int>(num_places),
          .model_width = 0,
          .expert_width = 0,
          .max_rows = static_cast<int>(row_assignment.size(0)),
          .type = data_type_of(like.scalar_type())};
}

at::Tensor expert_matmul_cuda(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                              const at::Tensor& row_assignment, const at::Tensor& expert_offset,
                              const OptionalTensor& place_of_expert, int64_t top_k, bool by_token,
                              bool transpose_weight) {
  const c10::cuda::CUDAGuard guard(x.device());
  const int64_t max_rows = row_assignment.size(0), num_experts = expert_offset.size(0) - 1;
  const int64_t depth = x.size(1), columns = weight.size(transpose_weight ? 1 : 2);
  // The host does not know how many rows are nobody's.
  at::Tensor y = at::zeros({max_rows, columns}, x.options());
  const DeviceSchedule schedule(expert_offset, place_of_expert, max_rows);
  if (fast_kernels_take(x.scalar_type(), num_experts, {depth, columns}) && fast_kernels_read(weight)) {
    const auto shape = shape_of(x, row_assignment, expert_offset, top_k, weight.size(0));
    const cuda::RowsProduct product = {
        .x = x.const_data_ptr(),
        .x_stride = depth,
        .by_token = by_token,
        .weight = {weight.const_data_ptr(), weight.stride(0)},
        .transposed = transpose_weight,
        .bias = bias ? cuda::PlacedBias{bias->const_data_ptr(), columns} : cuda::PlacedBias{},
        .depth = static_cast<int>(depth),
        .width = static_cast<int>(columns),
        .out = y.mutable_data_ptr()};
    cuda::expert_matmul(
        cuda::default_family(shape.type), shape,
        {integers(row_assignment), integers(expert_offset), integers(place_of_expert), schedule.schedule()},
        product, current_stream());
  } else {
    cuda::plain::multiply(plain_rows(x, row_assignment, top_k, by_token), static_cast<int>(depth),
                          plain_weights(weight, bias, transpose_weight), static_cast<int>(columns),
                          schedule.schedule(), schedule.max_tiles(), plain_output(y), current_stream());
  }
  return y;
}

at::Tensor expert_outer_cuda(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& row_assignment,
                             const at::Tensor& expert_offset, int64_t top_k, bool x_by_token) {
  const c10::cuda::CUDAGuard guard(x.device());
  const int64_t num_experts = expert_offset.size(0) - 1;
  at::Tensor out = at::empty({num_experts, dy.size(1), x.size(1)}, x.options());
  if (fast_kernels_take(x.scalar_type(), num_experts, {dy.size(1), x.size(1)})) {
    const auto shape = shape_of(x, row_assignment, expert_offset, top_k, num_experts);
    const cuda::OuterProduct product = {.by_row = dy.const_data_ptr(),
                                        .row_width = static_cast<int>(dy.size(1)),
                                        .gathered = x.const_data_ptr(),
                                        .gathered_stride = x.size(1),
                                        .by_token = x_by_token,
                                        .gathered_width = static_cast<int>(x.size(1)),
                                        .gathered_first = false,
                                        .out = {out.mutable_data_ptr(), out.stride(0), false, false}};
    cuda::expert_outer(cuda::default_family(shape.type), shape,
                       {integers(row_assignment), integers(expert_offset), nullptr, {}}, product,
                       current_stream());
  } else {
    cuda::plain::outer(plain_rows(dy, row_assignment, top_k, false), static_cast<int>(dy.size(1)),
                       plain_rows(x, row_assignment, top_k, x_by_token), static_cast<int>(x.size(1)),
                       plain_places(expert_offset, std::nullopt), plain_output(out), false, current_stream());
  }
  return out;
}

at::Tensor expert_sum_cuda(const at::Tensor& y, const at::Tensor& expert_offset) {
  const c10::cuda::CUDAGuard guard(y.device());
  at::Tensor out = at::empty({expert_offset.size(0) - 1, y.size(1)}, y.options().dtype(at::kFloat));
  const cuda::plain::Rows rows = {y.const_data_ptr(), element_of(y.scalar_type()), y.size(1), nullptr, 1};
  cuda::plain::column_sums(rows, static_cast<int>(y.size(1)), nullptr, nullptr,
                           plain_places(expert_offset, std::nullopt), plain_output(out), false,
                           current_stream());
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(motley, CUDA, m) {
  m.impl("expert_matmul", expert_matmul_cuda);
  m.impl("expert_outer", expert_outer_cuda);
  m.impl("expert_sum", expert_sum_cuda);
}

}  // namespace motley::ops
