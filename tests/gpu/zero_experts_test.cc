#include "motley/ops/zero_experts.h"

#include <ATen/ops/full.h>

#include "tests/support/gpu.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"
#include "tests/support/reference.h"

namespace motley::test {
namespace {

using ZeroExpertsOnGpu = OnGpu;
constexpr int64_t kNumExperts = 3;
const char* const kNames[] = {"dx", "dweights", "dconstant", "dconstant_gate"};

struct Problem {
  at::Tensor slots, dy;
  std::vector<ZeroExpertKind> kinds = {ZeroExpertKind::kConstant, ZeroExpertKind::kZero,
                                       ZeroExpertKind::kCopy, ZeroExpertKind::kConstant};
  Tensors inputs;  // x, weights, constant, constant_gate

  Problem(at::ScalarType dtype, int64_t num_tokens, int64_t width)
      : slots(at::full({num_tokens, 4}, -1, at::TensorOptions().dtype(at::kInt))),
        dy(random_values({num_tokens, width}, at::kFloat, 3)),
        inputs({random_values({num_tokens, width}, dtype, 1), random_values({num_tokens, 4}, at::kFloat, 2),
                random_values({2, width}, at::kFloat, 4),
                random_values({2, 2, width}, at::kFloat, 5).mul(0.1)}) {
    for (int64_t a = 0; a < slots.numel(); ++a) {
      slots.data_ptr<int32_t>()[a] = static_cast<int32_t>((a * 5 + a / 4) % (kNumExperts + 5)) - 1;
    }
  }

  Tensors leaves(at::Device device) const {
    Tensors moved;
    for (const auto& input : inputs) moved.push_back(leaf(input.to(device)));
    return moved;
  }
  at::Tensor run(const Tensors& in) const {
    return ops::zero_experts(in[0], slots.to(in[0].device()), in[1], kNumExperts, {kinds, in[2], in[3]});
  }
};

TEST_F(ZeroExpertsOnGpu, AgreeWithTheReference) {
  for (const auto& precision : gpu_precisions()) {
    for (const int64_t width : {1, 37, 512, 1000}) {
      for (const int64_t num_tokens : {0, 1, 300, 5000}) {
        SCOPED_TRACE(precision.name + " width " + std::to_string(width) + " tokens " +
                     std::to_string(num_tokens));
        const Problem problem(precision.dtype, num_tokens, width);
        const auto in = problem.leaves(at::kCUDA), cpu = problem.leaves(at::kCPU);
        const auto y = problem.run(in);
        const auto expected = reference_zero_experts(cpu[0], problem.slots, cpu[1], kNumExperts,
                                                     {problem.kinds, cpu[2], cpu[3]});
        EXPECT_EQ(y.scalar_type(), at::kFloat);
        expect_close("y", y, expected, 1e-5);
        const auto found = gradients(y, in, problem.dy.cuda());
        const auto wanted = gradients(expected, cpu, problem.dy.to(at::kDouble));
        const auto again = gradients(problem.run(in), in, problem.dy.cuda());
        for (size_t i = 0; i < in.size(); ++i) {
          EXPECT_EQ(found[i].scalar_type(), in[i].scalar_type()) << kNames[i];
          expect_close(kNames[i], found[i], wanted[i], precision.tolerance);
          expect_same_bits(kNames[i], again[i], found[i]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace motley::test
