// Decode steps of fixed sequences as one CUDA graph: hundreds of small kernels then cost one launch.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "motley/models/causal_lm.h"

namespace motley {

class DecodeGraph {
 public:
  virtual ~DecodeGraph() = default;
  // One token of each sequence at its position -> logits [B, V], valid until the next call. Neither reserves
  // room in the cache nor commits.
  virtual at::Tensor run(const std::vector<int64_t>& tokens, const std::vector<int64_t>& positions) = 0;
};

// For a model on a GPU; model and cache must outlive the graph. `sequences` have room in the cache for all
// tokens that will be run. The first call runs as any forward pass and is captured for those after it.
std::unique_ptr<DecodeGraph> make_decode_graph(CausalLm& model, KvCache& cache,
                                               const std::vector<int64_t>& sequences);

}  // namespace motley
