#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/machine.h"
#include "motley/base/concat.h"
#include "motley/base/format.h"

namespace motley {
namespace {

void print(const Machine& machine) {
  const auto line = [](const std::string& name, const std::string& value) {
    std::cerr << "  " << name << std::string(name.size() < 18 ? 18 - name.size() : 1, ' ') << value << '\n';
  };
  std::cerr << "This machine\n";
  line("processor", machine.cpu);
  line("processors", concat(machine.num_processors, " given to this process"));
  std::string sets;
  for (const auto& set : machine.instruction_sets) sets += (sets.empty() ? "" : " ") + set;
  line("instruction sets", sets.empty() ? "none of those that the kernels know" : sets);
  line("memory", concat(format_bytes(static_cast<double>(machine.memory_available)), " available of ",
                        format_bytes(static_cast<double>(machine.memory_total))));
  if (machine.gpus.empty()) line("GPUs", "none");
  for (const auto& gpu : machine.gpus) line("GPU", gpu);
  std::cerr << "What Motley will use\n";
  for (const auto& family : machine.families) {
    line(family.used ? "CPU kernels" : "",
         concat(family.used ? "> " : "  ", family.name, " (", family.instructions, ")",
                family.available ? "" : ", not on this processor"));
  }
  line("threads", concat(machine.threads));
  line("libtorch", machine.torch);
  line("CUDA", machine.built_with_cuda ? "built in" : "not built in");
  for (size_t i = 0; i < machine.gpu_ceilings.size(); ++i) {
    const auto& gpu = machine.gpu_ceilings[i];
    const auto tera = [](double rate) { return format_decimal(rate / 1e12, 1); };
    line(concat("cuda:", i),
         concat(tera(gpu.bf16_flops_per_second), " TFLOP/s in bf16, ", tera(gpu.fp32_flops_per_second),
                " in fp32, reads ", tera(gpu.read_bytes_per_second), " TB/s; measured now"));
  }
  std::cerr << "Environment variables\n";
  for (const auto& variable : machine.variables) {
    line(variable.name, variable.value.empty() ? "not set; " + variable.meaning : "= " + variable.value);
  }
  for (const auto& advice : machine.advice) std::cerr << "Note: " << advice << '\n';
}

}  // namespace

void add_doctor_command(CLI::App& app, std::function<void()>& action) {
  const auto json = std::make_shared<bool>(false);
  CLI::App* doctor = app.add_subcommand("doctor", "Show what the machine offers and what will be used");
  doctor->add_flag("--json", *json, "Print one JSON object on standard output");
  doctor->callback([json, &action] {
    action = [json] {
      Machine machine = examine_machine();
      measure_gpus(machine);
      if (*json) {
        std::cout << to_json(machine).dump() << std::endl;
      } else {
        print(machine);
      }
    };
  });
}

}  // namespace motley
