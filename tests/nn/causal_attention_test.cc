#include "motley/nn/causal_attention.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "motley/kernels/cpu/families.h"
#include "motley/nn/attention_kernels.h"

namespace motley {
namespace {

// Softmax with a mask, in fp64, by operators that differentiate themselves.
at::Tensor reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const std::vector<int64_t>& offsets) {
  const int64_t group = q.size(1) / k.size(1);
  std::vector<at::Tensor> outputs;
  for (size_t b = 0; b + 1 < offsets.size(); ++b) {
    const auto part = [&](const at::Tensor& x) {
      return x.slice(0, offsets[b], offsets[b + 1]).transpose(0, 1);
    };
    const auto keys = part(k).repeat_interleave(group, 0), values = part(v).repeat_interleave(group, 0);
    const int64_t length = offsets[b + 1] - offsets[b];
    const auto future = at::ones({length, length}, at::kBool).triu(1);
    const auto scores = at::matmul(part(q), keys.transpose(1, 2)) / std::sqrt(static_cast<double>(q.size(2)));
    outputs.push_back(
        at::matmul(at::softmax(scores.masked_fill(future, -INFINITY), -1), values).transpose(0, 1));
  }
  return at::cat(outputs);
}

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  if (expected.numel() == 0) return 0;
  const auto difference = (found.detach().to(at::kDouble) - expected.detach().to(at::kDouble)).abs().max();
  return (difference / expected.detach().to(at::kDouble).abs().max().clamp_min(1e-6)).item<double>();
}

struct Shape {
  std::vector<int64_t> offsets;
  int64_t heads, kv_heads, head_dim;
};
const Shape kShapes[] = {
    {{0, 1}, 1, 1, 2},            // one token sees itself
    {{0, 24, 48}, 4, 4, 32},      // whole blocks
    {{0, 23, 23, 48}, 4, 2, 16},  // an empty sequence, one short of a block
    {{0, 130, 161}, 6, 1, 48},    // all heads share keys
    {{0, 70}, 2, 2, 12},          // no whole vectors
    {{0, 65}, 2, 1, 80},
};

TEST(CausalAttention, MatchesTheFormulaAndItsGradients) {
  at::manual_seed(3);
  for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 1e-5}, std::pair{at::kBFloat16, 2e-2}}) {
    for (const Shape& shape : kShapes) {
      const int64_t tokens = shape.offsets.back();
      const auto random = [&](int64_t heads) {
        return (at::randn({tokens, heads, shape.head_dim}) * 2).to(dtype);
      };
      const auto q = random(shape.heads).requires_grad_(), k = random(shape.kv_heads).requires_grad_();
      const auto v = random(shape.kv_heads).requires_grad_(), d_out = random(shape.heads);
      const auto wide = [](const at::Tensor& x) { return x.detach().to(at::kDouble).requires_grad_(); };
      const auto q64 = wide(q), k64 = wide(k), v64 = wide(v);
      const auto expected = reference(q64, k64, v64, shape.offsets);
      expected.backward(d_out.to(at::kDouble));
      const auto found = causal_attention(q, k, v, shape.offsets);
      EXPECT_EQ(found.scalar_type(), dtype);
      found.backward(d_out);
      EXPECT_LT(relative_error(found, expected), tolerance) << shape.head_dim;
      EXPECT_LT(relative_error(q.grad(), q64.grad()), tolerance) << shape.head_dim;
      EXPECT_LT(relative_error(k.grad(), k64.grad()), tolerance) << shape.head_dim;
      EXPECT_LT(relative_error(v.grad(), v64.grad()), tolerance) << shape.head_dim;
    }
  }
}

TEST(CausalAttention, TakesExpandedGradientsAndStridedInput) {
  const auto wide = at::randn({4, 20, 16}).requires_grad_();
  const auto x = wide.transpose(0, 1);
  causal_attention(x, x, x, {0, 20}).sum().backward();
  const auto wide64 = wide.detach().to(at::kDouble).requires_grad_();
  const auto x64 = wide64.transpose(0, 1);
  reference(x64, x64, x64, {0, 20}).sum().backward();
  EXPECT_LT(relative_error(wide.grad(), wide64.grad()), 1e-4);
}

TEST(CausalAttention, DoesNotDependOnThreads) {
  const auto q = at::randn({100, 4, 16}), k = at::randn({100, 2, 16}), v = at::randn({100, 2, 16});
  const std::vector<int64_t> offsets = {0, 37, 100};
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    const auto [out, lse] = causal_attention_forward(q, k, v, offsets);
    const auto [dq, dk, dv] = causal_attention_backward(q, q, k, v, out, lse, offsets);
    return at::cat({out.flatten(), dq.flatten(), dk.flatten(), dv.flatten()});
  };
  const int threads = at::get_num_threads();
  const auto one = run(1), three = run(3);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
}

// Overflow must show, or training would go on with nonsense.
TEST(CausalAttention, PropagatesWhatIsNotFinite) {
  const auto k = at::randn({30, 1, 16}), v = at::randn({30, 1, 16});
  for (const double bad : {static_cast<double>(NAN), std::numeric_limits<double>::infinity()}) {
    auto q = at::randn({30, 1, 16});
    q[7][0][3] = bad;
    const auto out = causal_attention(q, k, v, {0, 30});
    EXPECT_FALSE(at::isfinite(out[7]).all().item<bool>());
    EXPECT_TRUE(at::isfinite(out[6]).all().item<bool>());
    EXPECT_TRUE(at::isfinite(out[8]).all().item<bool>());
  }
}

TEST(CausalAttention, LargeScoresDoNotOverflow) {
  const auto x = at::full({40, 1, 16}, 30.0);
  EXPECT_LT(relative_error(causal_attention(x, x, x, {0, 40}), x), 1e-6);
}

// Two query heads of one key-value head, each against the portable kernels on the same values in fp32.
TEST(CausalAttention, EveryFamilyAgrees) {
  struct Case {
    at::ScalarType dtype;
    int64_t length, head_dim;
    double tolerance;
  };
  for (const auto& [dtype, length, head_dim, tolerance] :
       {Case{at::kFloat, 61, 20, 1e-5}, Case{at::kBFloat16, 61, 20, 1e-2}, Case{at::kBFloat16, 1, 16, 1e-2},
        Case{at::kBFloat16, 64, 32, 1e-2}, Case{at::kBFloat16, 161, 80, 1e-2}}) {
    const auto random = [&](int64_t heads) { return at::randn({length, heads, head_dim}).to(dtype); };
    const auto q = random(2), k = random(1), v = random(1), d_out = random(2);
    const auto run = [&](const AttentionKernels& kernels, at::ScalarType type) {
      const auto in = [&](const at::Tensor& x) { return x.to(type); };
      const auto q_in = in(q), k_in = in(k), v_in = in(v), d_out_in = in(d_out);
      auto out = at::empty_like(q_in), lse = at::empty({2, length}), dq = at::empty_like(q_in),
           dk = at::empty_like(k_in), dv = at::empty_like(v_in);
      std::vector<float> scratch(kernels.scratch_floats(length, head_dim));
      AttentionTask task{};
      task.type = type == at::kFloat ? kernels::DType::kFloat32 : kernels::DType::kBFloat16;
      task.length = length;
      task.head_dim = head_dim;
      task.num_heads = 2;
      task.q_stride = 2 * head_dim, task.kv_stride = head_dim;
      task.lse_stride = length;
      task.scale = 0.3f;
      task.q = q_in.data_ptr(), task.k = k_in.data_ptr(), task.v = v_in.data_ptr(), task.o = out.data_ptr();
      task.lse = lse.data_ptr<float>();
      task.d_o = d_out_in.data_ptr(), task.dq = dq.data_ptr(), task.dk = dk.data_ptr(),
      task.dv = dv.data_ptr();
      task.scratch = scratch.data();
      kernels.forward(task);
      kernels.backward(task);
      return std::vector<at::Tensor>{out, lse, dq, dk, dv};
    };
    const auto expected = run(attention_portable(), at::kFloat);
    for (const auto& family : kernels::cpu_families()) {
      if (!family.available) continue;
      const auto found = run(attention_kernels(family.name), dtype);
      for (size_t i = 0; i < found.size(); ++i) {
        // A single position's dq and dk are differences of equal numbers about 1: zeros but for rounding.
        const bool zeros = length == 1 && (i == 2 || i == 3);
        EXPECT_LT(zeros ? found[i].abs().max().item<double>() : relative_error(found[i], expected[i]),
                  zeros ? 1e-5 : tolerance)
            << family.name << " " << dtype << " " << length << ", result " << i;
      }
    }
  }
}

TEST(CausalAttention, RefusesWhatDoesNotFit) {
  const auto x = at::randn({6, 4, 8});
  EXPECT_THROW(causal_attention(x, x, x, {0, 5}), c10::Error);
  EXPECT_THROW(causal_attention(x, x, x, {0, 4, 3, 6}), c10::Error);
  EXPECT_THROW(causal_attention(x, x.narrow(1, 0, 3), x.narrow(1, 0, 3), {0, 6}), c10::Error);
  const auto wide = x.to(at::kDouble);
  EXPECT_THROW(causal_attention(wide, wide, wide, {0, 6}), c10::Error);
}

}  // namespace
}  // namespace motley
