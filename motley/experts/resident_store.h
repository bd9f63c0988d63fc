// The default store: all experts of a layer stand in two stacks, where they are used.
#pragma once

#include <string>

#include "motley/experts/expert_store.h"

namespace motley {

struct ResidentStoreOptions {
  int64_t num_experts = 0;   // E, required
  int64_t hidden_size = 0;   // D, required
  int64_t expert_width = 0;  // F, required
  Activation activation;
  bool bias = false;
  at::ScalarType dtype = at::kFloat;
  // Gradients of weights in a smaller dtype are added up in fp32 over all backward passes of a step: their
  // .grad() is then an fp32 tensor. No effect, hence an error, with fp32 weights.
  bool fp32_gradients = false;
};

class ResidentStore : public ExpertStore {
 public:
  // Parameters are zeros, to be initialised or loaded through visit(). Throws UserError naming the option.
  explicit ResidentStore(const ResidentStoreOptions& options);

  // One wave with every expert. Backward adds weight gradients straight into the parameters' .grad(), in
  // place where there is one, of those parameters that require gradients when acquire is called.
  std::shared_ptr<WeightSource> acquire(const RoutingPlan& plan) override;
  const ExpertWeights* resident() const override { return &weights_; }
  int64_t num_experts() const override { return options_.num_experts; }
  // gate_up_proj [E, G, D], down_proj [E, D, F], and with bias gate_up_proj_bias [E, G], down_proj_bias [E,
  // D].
  void visit(const std::string& prefix, const TensorVisitor& visitor) override;

  const ExpertWeights& weights() const { return weights_; }

 private:
  ResidentStoreOptions options_;
  ExpertWeights weights_;
};

}  // namespace motley
