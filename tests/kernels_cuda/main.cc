// Stands alone, so that it can travel to a machine with a GPU: exit code 0 when everything passed, 77 where
// there is no Hopper GPU.
// Usage: kernels_cuda_test [small]
#include <cstring>
#include <exception>

#include "tests/kernels_cuda/tests.h"

int main(int count, char** arguments) {
  using namespace motley::cuda;
  using namespace motley::cuda::test;
  const bool small = count > 1 && std::strcmp(arguments[1], "small") == 0;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  int devices = 0;
  cudaDeviceProp properties{};
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0 ||
      cudaGetDeviceProperties(&properties, 0) != cudaSuccess || properties.major != 9) {
    std::printf("skipped: no GPU of compute capability 9.0\n");
    return 77;
  }
  Report report;
  try {
    test_routing_plan(report, small);
    test_expert_layer(report, Family::kSm90, DataType::kBf16, small);
  } catch (const std::exception& error) {
    std::printf("FAILED %s: %s\n", report.name, error.what());
    ++report.failed;
  }
  std::printf("%d passed, %d failed\n", report.passed, report.failed);
  return report.failed ? 1 : 0;
}
