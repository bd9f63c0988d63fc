// The tests of the CUDA kernels, one function a file. They run their first most_cases cases: the first 13
// are what a memory checker gets through.
#pragma once

#include "motley/kernels/cuda/expert_products.h"
#include "tests/kernels_cuda/device_array.h"

namespace motley::cuda::test {

constexpr int kAllCases = 1000;

void test_routing_plan(Report& report, int most_cases);
void test_zero_experts(Report& report, int most_cases);
void test_product_tiles(Report& report);
void test_deal_tiles(Report& report);
void test_decode(Report& report, int most_cases);
void test_expert_layer(Report& report, Family family, DataType type, int most_cases);

}  // namespace motley::cuda::test
