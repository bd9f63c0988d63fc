// What the machine offers to this process, and what Motley will use of it.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace motley {

struct Machine {
  struct Family {
    std::string name, instructions;
    bool available, used;
  };
  struct Variable {
    std::string name, value, meaning;  // value: empty when not set
  };

  std::string cpu;                                  // as the processor calls itself
  int num_processors = 0;                           // given to this process
  std::vector<std::string> instruction_sets;        // those that matter to the kernels
  uint64_t memory_total = 0, memory_available = 0;  // bytes, within the container's limit
  std::vector<Family> families;
  int threads = 0;
  std::string torch;
  std::vector<std::string> gpus;
  struct Ceilings {
    double bf16_flops_per_second, fp32_flops_per_second, read_bytes_per_second;
  };
  std::vector<Ceilings> gpu_ceilings;  // of the GPUs that this build can use
  bool built_with_cuda = false;
  std::vector<Variable> variables;
  std::vector<std::string> advice;  // what could be better
};

Machine examine_machine();
// Fills gpu_ceilings: about a second for each GPU.
void measure_gpus(Machine& machine);
nlohmann::json to_json(const Machine& machine);

}  // namespace motley
