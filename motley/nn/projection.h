// x W^T for the projections of a model.
#pragma once

#include <ATen/core/Tensor.h>

namespace motley {

// x [rows, in], weight [out, in]. torch's product; in inference on a CPU a few rows are multiplied as dot
// products, which read the weight at memory's pace, with the same bits for any number of threads.
at::Tensor project(const at::Tensor& x, const at::Tensor& weight);

}  // namespace motley
