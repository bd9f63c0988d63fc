// Attention on a GPU against the CPU: over packed sequences, and token by token over a cache in blocks.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include "motley/nn/attention.h"
#include "motley/nn/causal_attention.h"
#include "tests/support/gpu.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"

namespace motley::test {
namespace {

using AttentionOnGpu = OnGpu;
constexpr double kTolerance = 2e-2;  // of bf16; fp32 is compared at 2e-5

double tolerance_of(at::ScalarType dtype) { return dtype == at::kFloat ? 2e-5 : kTolerance; }

TEST_F(AttentionOnGpu, AgreesWithTheCpuOverPackedSequences) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t head_dim : {16, 64, 20}) {
      for (const auto& offsets : {std::vector<int64_t>{0, 50}, std::vector<int64_t>{0, 40, 80},
                                  std::vector<int64_t>{0, 1, 1, 60}}) {
        SCOPED_TRACE("dtype " + std::to_string(static_cast<int>(dtype)) + " head_dim " +
                     std::to_string(head_dim) + " sequences " + std::to_string(offsets.size() - 1));
        const int64_t tokens = offsets.back();
        const Tensors inputs = {random_values({tokens, 6, head_dim}, dtype, 1),
                                random_values({tokens, 2, head_dim}, dtype, 2),
                                random_values({tokens, 2, head_dim}, dtype, 3)};
        Tensors cpu, gpu;
        for (const auto& input : inputs) {
          cpu.push_back(leaf(input));
          gpu.push_back(leaf(input.cuda()));
        }
        const auto expected = causal_attention(cpu[0], cpu[1], cpu[2], offsets);
        const auto found = causal_attention(gpu[0], gpu[1], gpu[2], offsets);
        expect_close("out", found, expected, tolerance_of(dtype));
        const auto dy = random_values(expected.sizes(), dtype, 4);
        const auto wanted = gradients(expected, cpu, dy), got = gradients(found, gpu, dy.cuda());
        for (size_t i = 0; i < 3; ++i) {
          expect_close("gradient " + std::to_string(i), got[i], wanted[i], tolerance_of(dtype));
        }
      }
    }
  }
}

// Prompts of several lengths, then one token of each at a time through the block table.
TEST_F(AttentionOnGpu, DecodesAsTheCpuDoes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t head_dim : {16, 128, 200}) {
      for (const int64_t num_heads : {2, 6}) {
        SCOPED_TRACE("dtype " + std::to_string(static_cast<int>(dtype)) + " head_dim " +
                     std::to_string(head_dim) + " heads " + std::to_string(num_heads));
        const std::vector<int64_t> lengths = {5, 700, 33};
        const KvCacheShape shape = {1, 2, head_dim};
        KvCache cpu(shape, dtype, 80), gpu(shape, dtype, 80, 16, at::kCUDA);
        std::vector<int64_t> sequences;
        for (const int64_t length : lengths) {
          sequences.push_back(cpu.add_sequence());
          gpu.add_sequence();
          for (KvCache* cache : {&cpu, &gpu}) cache->reserve(sequences.back(), length + 8);
        }
        uint64_t seed = 0;
        for (int64_t step = 0; step < 4; ++step) {
          PackedBatch batch;
          batch.sequence_offset = {0};
          std::vector<at::Tensor> positions;
          for (const int64_t length : lengths) {
            const int64_t first = step == 0 ? 0 : length + step - 1, count = step == 0 ? length : 1;
            positions.push_back(at::arange(first, first + count, at::kLong));
            batch.sequence_offset.push_back(batch.sequence_offset.back() + count);
          }
          batch.positions = at::cat(positions);
          const int64_t tokens = batch.sequence_offset.back();
          const auto q = random_values({tokens, num_heads, head_dim}, dtype, ++seed);
          const auto k = random_values({tokens, 2, head_dim}, dtype, ++seed);
          const auto v = random_values({tokens, 2, head_dim}, dtype, ++seed);
          const auto expected = packed_attention(q, k, v, batch, {&cpu, 0, &sequences, {}});
          PackedBatch moved = batch;
          moved.positions = batch.positions.cuda();
          const at::Tensor table = step == 0 ? at::Tensor() : gpu.block_table(sequences);
          const auto found =
              packed_attention(q.cuda(), k.cuda(), v.cuda(), moved, {&gpu, 0, &sequences, table});
          expect_close("step " + std::to_string(step), found, expected, tolerance_of(dtype));
          for (size_t b = 0; b < sequences.size(); ++b) {
            const int64_t count = batch.sequence_offset[b + 1] - batch.sequence_offset[b];
            cpu.commit(sequences[b], count);
            gpu.commit(sequences[b], count);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace motley::test
