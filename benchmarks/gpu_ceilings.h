// What a GPU can do, measured now by torch's own kernels.
#pragma once

#include <ATen/core/Tensor.h>

namespace motley::bench {

// FLOP/s of a large product of matrices; TF32 is off for fp32.
double gpu_matrix_peak(c10::Device device, at::ScalarType dtype);

// Bytes a second when 4 GiB are read once.
double gpu_read_bandwidth(c10::Device device);

}  // namespace motley::bench
