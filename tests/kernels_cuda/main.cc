// Stands alone, so that it can travel to a machine with a GPU: exit code 0 when everything passed, 77 where
// there is no GPU from compute capability 8.0 on.
// Usage: kernels_cuda_test [small|N] [sm80|sm90] [few_tokens]: all cases, the small ones, or the first N
#include <cstdlib>
#include <cstring>
#include <exception>

#include "tests/kernels_cuda/tests.h"

namespace {

using namespace motley::cuda;
using namespace motley::cuda::test;

struct Arguments {
  int most_cases = kAllCases;
  const char* family = nullptr;  // null: all that run here
  bool few_tokens = false;       // nothing but the path for a few tokens
};

Arguments parse(int count, char** arguments) {
  Arguments parsed;
  for (int i = 1; i < count; ++i)
    if (std::strcmp(arguments[i], "small") == 0)
      parsed.most_cases = 13;
    else if (std::strcmp(arguments[i], "few_tokens") == 0)
      parsed.few_tokens = true;
    else if (std::atoi(arguments[i]) > 0)
      parsed.most_cases = std::atoi(arguments[i]);
    else
      parsed.family = arguments[i];
  return parsed;
}

struct Kind {
  Family family;
  DataType type;
};

}  // namespace

int main(int count, char** argument_values) {
  const Arguments arguments = parse(count, argument_values);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  int devices = 0;
  cudaDeviceProp properties{};
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0 ||
      cudaGetDeviceProperties(&properties, 0) != cudaSuccess || properties.major < 8) {
    std::printf("skipped: no GPU of compute capability 8.0 or newer\n");
    return 77;
  }
  Report report;
  try {
    if (!arguments.few_tokens) {
      test_product_tiles(report);
      test_routing_plan(report, arguments.most_cases);
      test_zero_experts(report, arguments.most_cases);
    }
    for (const Kind& kind : {Kind{Family::kSm90, DataType::kBf16}, Kind{Family::kSm80, DataType::kBf16},
                             Kind{Family::kSm80, DataType::kFp16}}) {
      const char* family = family_name(kind.family);
      if (kind.family == Family::kSm90 && properties.major != 9) continue;
      if (arguments.family && std::strcmp(arguments.family, family) != 0) continue;
      if (arguments.few_tokens && kind.family != Family::kSm90) continue;
      if (kind.family == Family::kSm90 && !arguments.few_tokens) test_deal_tiles(report);
      std::printf("%s, %s\n", family, kind.type == DataType::kBf16 ? "bf16" : "fp16");
      if (!arguments.few_tokens) test_expert_layer(report, kind.family, kind.type, arguments.most_cases);
      if (kind.family == Family::kSm90) test_decode(report, arguments.most_cases);
    }
  } catch (const std::exception& error) {
    std::printf("FAILED %s: %s\n", report.name.c_str(), error.what());
    ++report.failed;
  }
  std::printf("%d passed, %d failed\n", report.passed, report.failed);
  return report.failed ? 1 : 0;
}
