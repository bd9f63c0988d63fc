#include "apps/machine.h"

#include <ATen/Context.h>
#include <torch/version.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "benchmarks/gpu_ceilings.h"
#include "motley/base/concat.h"
#include "motley/base/env.h"
#include "motley/base/format.h"
#include "motley/base/memory.h"
#include "motley/base/processors.h"
#include "motley/infer/threads.h"
#include "motley/kernels/cpu/families.h"

namespace motley {
namespace {

namespace fs = std::filesystem;

constexpr bool kBuiltWithCuda = MOTLEY_HAS_CUDA;

// The value behind "key : value" in a file of such lines, or "".
std::string field(const fs::path& file, const std::string& key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || !line.starts_with(key)) continue;
    const size_t key_end = line.find_last_not_of(" \t", colon - 1) + 1;
    const size_t value = line.find_first_not_of(" \t", colon + 1);
    if (key_end == key.size() && value != std::string::npos) return line.substr(value);
  }
  return "";
}

std::vector<std::string> instruction_sets() {
  std::istringstream flags(field("/proc/cpuinfo", "flags"));
  std::vector<std::string> all, known;
  for (std::string flag; flags >> flag;) all.push_back(flag);
  for (const char* name : {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
                           "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"}) {
    if (std::find(all.begin(), all.end(), name) != all.end()) known.push_back(name);
  }
  return known;
}

std::vector<std::string> gpus() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc/driver/nvidia/gpus", error)) {
    const std::string model = field(entry.path() / "information", "Model");
    names.push_back(concat(model.empty() ? "NVIDIA GPU" : model, ", PCI ", entry.path().filename().string()));
  }
  for (int i = 0; names.empty() && i < 64; ++i) {
    if (fs::exists(concat("/dev/nvidia", i), error)) names.push_back(concat("NVIDIA GPU ", i));
  }
  return names;
}

void advise(Machine& machine) {
  const auto used =
      std::find_if(machine.families.begin(), machine.families.end(), [](auto& f) { return f.used; });
  const auto best =
      std::find_if(machine.families.rbegin(), machine.families.rend(), [](auto& f) { return f.available; });
  if (used != machine.families.end() && best != machine.families.rend() && used->name != best->name) {
    machine.advice.push_back(
        concat("CPU kernels are forced to ", used->name, "; ", best->name, " is faster here."));
  }
  if (machine.threads > machine.num_processors) {
    machine.advice.push_back(concat(machine.threads, " threads on ", machine.num_processors,
                                    " processors slow each other down; lower MOTLEY_THREADS."));
  }
  if (!machine.gpus.empty() && !machine.built_with_cuda) {
    machine.advice.push_back("A GPU is here, but this build has no CUDA: configure with the preset cuda.");
  }
  if (machine.memory_available < uint64_t{1} << 30) {
    machine.advice.push_back("Less than 1 GiB of memory is available.");
  }
}

}  // namespace

Machine examine_machine() {
  Machine machine;
  machine.cpu = field("/proc/cpuinfo", "model name");
  if (machine.cpu.empty()) machine.cpu = "unknown";
  machine.num_processors = usable_processors();
  machine.instruction_sets = instruction_sets();
  const Memory memory = usable_memory();
  machine.memory_total = memory.total;
  machine.memory_available = memory.available;
  for (const auto& family : kernels::cpu_families()) {
    machine.families.push_back(
        {family.name, family.instructions, family.available, family.name == kernels::cpu_family().name});
  }
  machine.threads = choose_threads();
  machine.torch = TORCH_VERSION;
  machine.gpus = gpus();
  machine.built_with_cuda = kBuiltWithCuda;
  for (const auto& variable : env_variables()) {
    machine.variables.push_back({variable.name, env_value(variable), variable.meaning});
  }
  advise(machine);
  return machine;
}

void measure_gpus(Machine& machine) {
  const int count = at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  for (int index = 0; index < count; ++index) {
    const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
    machine.gpu_ceilings.push_back({bench::gpu_matrix_peak(device, at::kBFloat16),
                                    bench::gpu_matrix_peak(device, at::kFloat),
                                    bench::gpu_read_bandwidth(device)});
  }
}

nlohmann::json to_json(const Machine& machine) {
  nlohmann::json ceilings = nlohmann::json::array();
  for (const auto& gpu : machine.gpu_ceilings) {
    ceilings.push_back({{"bf16_flops_per_second", gpu.bf16_flops_per_second},
                        {"fp32_flops_per_second", gpu.fp32_flops_per_second},
                        {"read_bytes_per_second", gpu.read_bytes_per_second}});
  }
  nlohmann::json families = nlohmann::json::array(), variables = nlohmann::json::object();
  for (const auto& family : machine.families) {
    families.push_back({{"name", family.name},
                        {"instructions", family.instructions},
                        {"available", family.available},
                        {"used", family.used}});
  }
  for (const auto& variable : machine.variables) {
    variables[variable.name] = variable.value.empty() ? nlohmann::json() : nlohmann::json(variable.value);
  }
  return {{"cpu", machine.cpu},
          {"num_processors", machine.num_processors},
          {"instruction_sets", machine.instruction_sets},
          {"memory_total", machine.memory_total},
          {"memory_available", machine.memory_available},
          {"cpu_kernels", families},
          {"threads", machine.threads},
          {"torch", machine.torch},
          {"gpus", machine.gpus},
          {"gpu_ceilings", ceilings},
          {"built_with_cuda", machine.built_with_cuda},
          {"environment", variables},
          {"advice", machine.advice}};
}

}  // namespace motley
