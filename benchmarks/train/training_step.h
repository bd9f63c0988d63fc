// Times training steps of a configuration on random tokens, whole and by part.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "benchmarks/timing.h"
#include "benchmarks/train/part_times.h"
#include "motley/train/run_config.h"

namespace motley::bench {

struct TrainingStepResult {
  int64_t tokens;                         // of a step
  Timing step;                            // without listening to its parts
  double processor_seconds;               // of all threads, in a mean step
  std::map<std::string, PartTime> parts;  // means, of other steps
  double ffn_experts_per_token;
};

// Measures for `seconds` on the threads that torch is set to. Throws UserError for a wrong configuration.
TrainingStepResult bench_training_step(const RunConfig& config, double seconds);

}  // namespace motley::bench
