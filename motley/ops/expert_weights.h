// Weights of the experts of one layer as the operators see them: resident stacks, buffered places,
// replicas, F-slices and quantised copies alike. And where backward gets them from again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "motley/ops/activation.h"

namespace motley {

// P places hold an expert each; any stride between places, each expert one contiguous block.
// D model width, F expert width, G = 2F for gated activations (gate rows, then up rows) or F.
struct ExpertWeights {
  at::Tensor gate_up;          // [P, G, D]
  at::Tensor down;             // [P, D, F]
  at::Tensor gate_up_bias;     // [P, G], or undefined
  at::Tensor down_bias;        // [P, D], or undefined
  at::Tensor gate_up_scale;    // per output row of quantised weights [P, G] fp32, or undefined
  at::Tensor down_scale;       // [P, D] fp32, or undefined
  at::Tensor place_of_expert;  // [E] int32, -1: not here; undefined: expert e is at place e
  Activation activation;

  int64_t num_places() const { return gate_up.size(0); }
  int64_t model_width() const { return gate_up.size(2); }
  int64_t expert_width() const { return down.size(2); }
};

// Gradients in the layout of the weights they belong to (by place); undefined where there is no tensor.
struct ExpertWeightGradients {
  at::Tensor gate_up, down, gate_up_bias, down_bias;
};

enum class Pass { kForward, kBackward };

// Supplies expert weights to the compute node, in forward and again in backward, so that the node
// saves none, and receives their gradients. Implemented by the expert stores.
// The node computes waves in ascending order and releases each before it acquires the next.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // At least 1. Every expert that has rows is at a place in exactly one wave.
  virtual int num_waves() const = 0;
  virtual ExpertWeights acquire(int wave, Pass pass) = 0;
  virtual void release(int wave, Pass pass) {}
  // Whether backward should compute weight gradients at all.
  virtual bool requires_grad() const = 0;
  // Called once per wave in backward, in ascending order, on the thread of backward.
  virtual void accumulate_gradients(int wave, const ExpertWeightGradients& gradients) = 0;
  // Where weight gradients may be added in place (gradients in fp32 or the weights' dtype); undefined
  // members make the operator allocate fresh ones and hand them to accumulate_gradients.
  virtual ExpertWeightGradients gradient_buffers(int wave) { return {}; }
};

}  // namespace motley
