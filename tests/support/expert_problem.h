// Random inputs of the expert operators.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "motley/ops/expert_weights.h"
#include "motley/ops/routing_plan.h"

namespace motley::test {

// Who gets the tokens.
enum class Spread {
  kRandom,       // distinct slots per token among the experts, -1 and zero-computation slots
  kOneGetsAll,   // every token chooses one expert, in its first choice
  kSomeGetNone,  // only even experts are chosen
  kNoRows,       // no choice is an expert's
  kNoTokens,
};
const std::vector<Spread>& all_spreads();
std::string name_of(Spread spread);

struct ExpertProblemOptions {
  at::ScalarType dtype = at::kFloat;
  Spread spread = Spread::kRandom;
  ActivationKind activation = ActivationKind::kSwiGlu;
  bool bias = false;
  int64_t num_tokens = 29, top_k = 2, num_experts = 4, width = 37, expert_width = 19;
  uint64_t seed = 1;
};

struct ExpertProblem {
  at::Tensor x;             // [T, D]
  at::Tensor slots;         // [T, K]
  at::Tensor gate_weights;  // [T, K]
  RoutingPlan plan;
  ExpertWeights weights;
  at::Tensor dy;  // [T, D]
  int64_t num_experts;
};
ExpertProblem make_expert_problem(const ExpertProblemOptions& options);

// x, gate weights and the weights there are, in one list; and back.
std::vector<at::Tensor> inputs_of(const ExpertProblem& problem);
ExpertWeights weights_of(const std::vector<at::Tensor>& inputs, ExpertWeights weights);
// What the gradients of that list are called.
inline const char* const kExpertFfnGradients[] = {"dx",    "dgate_weights", "dgate_up",
                                                  "ddown", "dgate_up_bias", "ddown_bias"};

// Random values in [-1, 1), the same for a seed.
at::Tensor random_values(at::IntArrayRef sizes, at::ScalarType dtype, uint64_t seed);

// The same values at an address that is aligned to the element only, in a storage of their own.
at::Tensor misaligned(const at::Tensor& tensor);
// The same values with gaps between elements.
at::Tensor strided(const at::Tensor& tensor);

}  // namespace motley::test
