// Gates whose logits are their input, so that a test can name probabilities.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "motley/ops/zero_experts.h"
#include "motley/routing/gates.h"

namespace motley {

inline at::Tensor matrix(int64_t columns, const std::vector<float>& values) {
  return at::tensor(values).view({-1, columns});
}

inline at::Tensor slots_of(int64_t top_k, const std::vector<int>& slots) {
  return at::tensor(slots).view({-1, top_k});
}

inline std::map<std::string, at::Tensor> tensors_of(Gate& gate) {
  std::map<std::string, at::Tensor> tensors;
  gate.visit("",
             [&](const std::string& name, at::Tensor& tensor, TensorRole) { tensors.emplace(name, tensor); });
  return tensors;
}

// hidden_size is the number of slots.
inline GateOptions square_options(int64_t num_experts, int64_t top_k,
                                  std::vector<ZeroExpertKind> zero_experts = {}) {
  GateOptions options;
  options.num_experts = num_experts;
  options.num_experts_per_tok = top_k;
  options.zero_experts = std::move(zero_experts);
  options.hidden_size = options.num_slots();
  return options;
}

// With the unit matrix as its weight.
inline std::unique_ptr<Gate> unit_gate(const GateOptions& options) {
  auto gate = make_gate(options);
  tensors_of(*gate).at("weight").copy_(at::eye(options.num_slots()));
  return gate;
}

// Logits are the logarithms of the probabilities, whose rows sum to 1.
inline Routing route_probabilities(const GateOptions& options, const std::vector<float>& probabilities,
                                   bool training = false) {
  GateInput input;
  input.x = matrix(options.num_slots(), probabilities).log();
  input.training = training;
  return unit_gate(options)->route(input);
}

inline void expect_close(const at::Tensor& found, const at::Tensor& expected, double tolerance = 1e-5) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  EXPECT_TRUE(at::allclose(found, expected, tolerance, tolerance)) << "found\n"
                                                                   << found << "\nexpected\n"
                                                                   << expected;
}

inline void expect_load(const Routing& routing, const std::vector<int64_t>& load) {
  EXPECT_TRUE(routing.load.equal(at::tensor(load))) << "found\n" << routing.load;
}

inline void expect_slots(const Routing& routing, const std::vector<int>& slots) {
  const at::Tensor expected = at::tensor(slots).view(routing.slots.sizes());
  EXPECT_EQ(routing.slots.scalar_type(), at::kInt);
  EXPECT_TRUE(routing.slots.equal(expected)) << "found\n" << routing.slots << "\nexpected\n" << expected;
}

inline double loss_of(const Routing& routing, const std::string& name) {
  for (const AuxiliaryLoss& loss : routing.losses) {
    if (loss.name == name) return loss.value.item<double>();
  }
  ADD_FAILURE() << "no loss named " << name;
  return 0;
}

}  // namespace motley
