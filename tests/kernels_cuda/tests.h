// The tests of the CUDA kernels, one function a file. `small`: only what a memory checker gets through.
#pragma once

#include "motley/kernels/cuda/expert_products.h"
#include "tests/kernels_cuda/device_array.h"

namespace motley::cuda::test {

void test_routing_plan(Report& report, bool small);
void test_expert_layer(Report& report, Family family, DataType type, bool small);

}  // namespace motley::cuda::test
