// A linear router with softmax scores and top-k choice.
#pragma once

#include <string>

#include "motley/routing/gate.h"
#include "motley/routing/gate_options.h"

namespace motley {

class SoftmaxGate : public Gate {
 public:
  SoftmaxGate(const GateOptions& options, at::ScalarType dtype);

  Routing route(const GateInput& input) const override;
  void update(const at::Tensor& load) override;
  int64_t num_slots() const override { return options_.num_slots(); }
  void visit(const std::string& prefix, const TensorVisitor& visitor) override;

 private:
  at::Tensor raw_logits(const GateInput& input) const;                           // [T, S] fp32
  at::Tensor scores(const at::Tensor& logits) const;                             // [T, S] fp32
  at::Tensor weights(const at::Tensor& scores, const at::Tensor& chosen) const;  // [T, K] fp32
  Routing route_fused(const GateInput& input, Routing routing) const;            // on a GPU
  bool drops(const GateInput& input) const;
  void finish(const GateInput& input, const at::Tensor& scores, at::Tensor keep, Routing& routing) const;
  void add_losses(const GateInput& input, const at::Tensor& scores, const at::Tensor& assigned,
                  Routing& routing) const;

  GateOptions options_;
  at::Tensor weight_;           // [S, D]
  at::Tensor residual_weight_;  // [S, S], or undefined
  at::Tensor selection_bias_;   // [S] fp32, or undefined
};

}  // namespace motley
