// x W^T for the projections of a model.
#pragma once

#include <ATen/core/Tensor.h>

namespace motley {

// Up to so many rows are few.
constexpr int64_t kMostProjectedRows = 8;

// x [rows, in], weight [out, in]. torch's product; in inference on a CPU a few rows are multiplied as dot
// products, which read the weight at memory's pace, with the same bits for any number of threads.
at::Tensor project(const at::Tensor& x, const at::Tensor& weight);

}  // namespace motley
