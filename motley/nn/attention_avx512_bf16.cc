#include "motley/nn/attention_kernels.h"
#include "motley/nn/attention_pairs.h"

namespace motley {
namespace {

void forward(const AttentionTask& task) {
  PairAttention::takes(task) ? PairAttention::forward(task) : attention_avx512().forward(task);
}

void backward(const AttentionTask& task) {
  PairAttention::takes(task) ? PairAttention::backward(task) : attention_avx512().backward(task);
}

int64_t scratch_floats(int64_t length, int64_t head_dim) {
  const int64_t words = PairScratch(nullptr, length, head_dim).words;
  const int64_t others = attention_avx512().scratch_floats(length, head_dim);
  return words > others ? words : others;
}

}  // namespace

AttentionKernels attention_avx512_bf16() { return {forward, backward, scratch_floats}; }

}  // namespace motley
