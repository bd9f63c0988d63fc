// The options of every command that takes a model.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "apps/option_checks.h"
#include "motley/infer/threads.h"
#include "motley/kernels/cpu/families.h"
#include "motley/models/registry.h"
#include "motley/ops/device.h"

namespace motley {

struct ModelArguments {
  std::string path, dtype, device = "cpu";

  void add_to(CLI::App& command) {
    command.add_option("MODEL", path, "A model folder, a checkpoint or a run folder")->required();
    command.add_option("--dtype", dtype, "Compute in fp32 or bf16 (default: what config.json says)")
        ->check(one_of({"fp32", "bf16"}));
    command.add_option("--device", device, "Compute on cpu, cuda or cuda:<n>")->capture_default_str();
  }

  std::unique_ptr<CausalLm> load() const {
    use_threads();
    kernels::cpu_family();  // throws where MOTLEY_CPU_KERNELS asks for what this processor has not
    LoadOptions options;
    options.device = parse_device(device, "--device");
    if (!dtype.empty()) options.dtype = dtype == "bf16" ? at::kBFloat16 : at::kFloat;
    return load_model(path, options);
  }
};

}  // namespace motley
