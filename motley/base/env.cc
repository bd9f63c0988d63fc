#include "motley/base/env.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "motley/base/error.h"

namespace motley {
namespace {

constexpr const char* kCpuKernels = "MOTLEY_CPU_KERNELS";
constexpr const char* kLog = "MOTLEY_LOG";
constexpr const char* kThreads = "MOTLEY_THREADS";
constexpr std::array<std::string_view, 5> kKernelFamilies = {"portable", "avx2", "avx512", "avx512_bf16",
                                                             "amx"};

}  // namespace

const std::vector<EnvVariable>& env_variables() {
  static const std::vector<EnvVariable> table = {
      {kCpuKernels, "portable, avx2, avx512, avx512_bf16 or amx",
       "forces a family of CPU kernels; without it the best one the processor has is used"},
      {kLog, "debug, info, warn, error or off", "the least important log lines that are shown (info)"},
      {kThreads, "1 to 1024", "threads for CPU work; without it all processors that the process may use"},
  };
  return table;
}

std::string env_value(const EnvVariable& variable) {
  const char* value = std::getenv(variable.name);
  return value == nullptr ? "" : value;
}

Environment read_environment(const std::function<const char*(const char*)>& get) {
  auto value_of = [&get](const char* name) -> std::optional<std::string> {
    const char* value = get(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return std::string(value);
  };
  Environment result;
  if (auto kernels = value_of(kCpuKernels)) {
    const bool known =
        std::find(kKernelFamilies.begin(), kKernelFamilies.end(), *kernels) != kKernelFamilies.end();
    if (!known) {
      throw UserError(Mistake{concat("environment variable ", kCpuKernels),
                              "portable, avx2, avx512, avx512_bf16 or amx", "'" + *kernels + "'", ""});
    }
    result.cpu_kernels = std::move(kernels);
  }
  if (const auto level = value_of(kLog)) {
    result.log_level = parse_log_level(*level, concat("environment variable ", kLog));
  }
  if (const auto threads = value_of(kThreads)) {
    int number = 0;
    const char* end = threads->data() + threads->size();
    const auto [stop, error] = std::from_chars(threads->data(), end, number);
    if (error != std::errc() || stop != end || number < 1 || number > kMaxThreads) {
      throw UserError(Mistake{concat("environment variable ", kThreads),
                              concat("a whole number from 1 to ", kMaxThreads), "'" + *threads + "'", ""});
    }
    result.num_threads = number;
  }
  return result;
}

const Environment& environment() {
  static const Environment instance = read_environment([](const char* name) { return std::getenv(name); });
  return instance;
}

void fix_cublas_workspace() { ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0); }
void ask_for_huge_pages() { ::setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0); }

}  // namespace motley
