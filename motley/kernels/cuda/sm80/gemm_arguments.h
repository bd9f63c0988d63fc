// Fills the shared part of a grouped product's arguments.
#pragma once

#include <stdexcept>

#include "motley/kernels/cuda/element.h"
#include "motley/kernels/cuda/expert_products.h"
#include "motley/kernels/cuda/sm80/gemm_params.h"

namespace motley::cuda::sm80 {

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Calls function.template operator()<T>() with the type of rows and weights.
template <class Function>
void with_type(DataType type, Function function) {
  switch (type) {
    case DataType::kBf16:
      return function.template operator()<__nv_bfloat16>();
    case DataType::kFp16:
      return function.template operator()<__half>();
    case DataType::kFp32:
      return function.template operator()<float>();
  }
  throw std::invalid_argument("[expert products] unknown data type");
}

inline void set_plan(PlanParams& p, const ExpertShape& shape, const ExpertPlan& plan, int num_n_tiles) {
  p.expert_offset = plan.expert_offset;
  p.place_of_expert = plan.place_of_expert;
  p.row_assignment = plan.row_assignment;
  p.top_k = Divisor(shape.top_k);
  p.num_experts = shape.num_experts;
  p.num_m_tiles = 1;
  p.num_n_tiles = num_n_tiles;
}

template <class T>
void set_weight(RowsParams<T>& p, const PlacedWeights& weight, long line_stride, int width) {
  p.b = static_cast<const T*>(weight.data);
  p.b_stride = line_stride;
  p.b_place_stride = weight.stride;
  p.b_width = width;
}

}  // namespace motley::cuda::sm80
