#include "motley/ops/device.h"

#include <ATen/Context.h>

#include <charconv>

#include "motley/base/env.h"
#include "motley/base/error.h"

namespace motley {
namespace {

int64_t num_gpus() { return at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0; }

}  // namespace

c10::Device parse_device(const std::string& name, const std::string& where) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  int index = 0;
  bool known = name == "cuda";
  if (name.starts_with("cuda:")) {
    const char* end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + 5, end, index);
    known = error == std::errc() && stop == end && index >= 0;
  }
  if (!known) throw UserError(Mistake{where, "cpu, cuda or cuda:<number>", "'" + name + "'", ""});
  const int64_t gpus = num_gpus();
  if (index >= gpus) {
    throw UserError(Mistake{where, gpus == 0 ? "cpu, for there is no GPU" : concat("a GPU below ", gpus),
                            "'" + name + "'",
                            "`motley doctor` shows whether CUDA is built in and what the machine has"});
  }
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

void use_deterministic_algorithms() {
  fix_cublas_workspace();
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

}  // namespace motley
