#include <ATen/core/grad_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>

#include "motley/infer/decode_graph.h"

namespace motley {
namespace {

class CapturedDecode final : public DecodeGraph {
 public:
  CapturedDecode(CausalLm& model, KvCache& cache, const std::vector<int64_t>& sequences) : model_(model) {
    const auto count = static_cast<int64_t>(sequences.size());
    const auto options = at::TensorOptions().dtype(at::kLong);
    host_ = at::empty({2, count}, options.pinned_memory(true));
    device_ = at::empty({2, count}, options.device(model.device()));
    batch_.ids = device_[0];
    batch_.positions = device_[1];
    for (int64_t b = 0; b <= count; ++b) batch_.sequence_offset.push_back(b);
    forward_.cache = &cache;
    forward_.cache_sequences = sequences;
    forward_.cache_block_table = cache.block_table(sequences);
  }

  at::Tensor run(const std::vector<int64_t>& tokens, const std::vector<int64_t>& positions) override {
    const at::NoGradGuard no_grad;
    const c10::cuda::CUDAGuard guard(model_.device());
    auto* host = host_.mutable_data_ptr<int64_t>();
    std::copy(tokens.begin(), tokens.end(), host);
    std::copy(positions.begin(), positions.end(), host + tokens.size());
    // The last step's copy has ended: its logits have been read, or the capture has waited.
    device_.copy_(host_, /*non_blocking=*/true);
    if (!logits_.defined()) return capture();
    graph_.replay();
    return logits_;
  }

 private:
  // What the first pass allocates, loads and tunes must not happen while a graph is captured.
  at::Tensor capture() {
    at::Tensor first = model_.forward(batch_, forward_).logits;
    c10::cuda::getCurrentCUDAStream().synchronize();
    const c10::cuda::CUDAStreamGuard side(c10::cuda::getStreamFromPool());
    graph_.capture_begin();
    logits_ = model_.forward(batch_, forward_).logits;
    graph_.capture_end();
    return first;
  }

  CausalLm& model_;
  at::Tensor host_, device_;  // [2, B]: tokens, positions
  PackedBatch batch_;
  ForwardOptions forward_;
  at::cuda::CUDAGraph graph_;
  at::Tensor logits_;
};

}  // namespace

std::unique_ptr<DecodeGraph> make_decode_graph(CausalLm& model, KvCache& cache,
                                               const std::vector<int64_t>& sequences) {
  return std::make_unique<CapturedDecode>(model, cache, sequences);
}

}  // namespace motley
