// The compute node over a WeightSource: waves, gradients that go to the source, and what it keeps.
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <limits>

#include "benchmarks/memory_meter.h"
#include "motley/ops/expert_ffn.h"
#include "tests/support/expert_problem.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"

namespace motley::test {
namespace {

// Serves a layer's experts in waves: expert e in wave e % num_waves, each wave in tensors that are
// overwritten when it is released. Records what the node does.
class WaveSource final : public WeightSource {
 public:
  WaveSource(const ExpertWeights& weights, int num_waves, bool requires_grad = true)
      : weights_(weights), num_waves_(num_waves), requires_grad_(requires_grad) {
    gradients_ = {at::zeros_like(weights.gate_up), at::zeros_like(weights.down),
                  at::zeros_like(weights.gate_up_bias), at::zeros_like(weights.down_bias)};
  }

  int num_waves() const override { return num_waves_; }
  ExpertWeights acquire(int wave, Pass pass) override {
    log_ += std::string(pass == Pass::kForward ? "f" : "b") + std::to_string(wave);
    const auto experts = experts_of(wave);
    ExpertWeights part = weights_;
    for (auto* tensor : {&part.gate_up, &part.down, &part.gate_up_bias, &part.down_bias}) {
      *tensor = tensor->index_select(0, experts);
    }
    part.place_of_expert = at::full({weights_.num_places()}, -1, at::TensorOptions().dtype(at::kInt));
    part.place_of_expert.index_copy_(0, experts, at::arange(experts.size(0), part.place_of_expert.options()));
    in_use_ = part;
    if (throw_at_ == log_) {
      in_use_.down = part.down.narrow(1, 0, 1);
    }
    return in_use_;
  }
  void release(int wave, Pass pass) override {
    log_ += "r ";
    in_use_.gate_up.fill_(std::numeric_limits<float>::quiet_NaN());
    in_use_.down.fill_(std::numeric_limits<float>::quiet_NaN());
  }
  bool requires_grad() const override { return requires_grad_; }
  ExpertWeightGradients gradient_buffers(int wave) override { return buffers_; }
  void accumulate_gradients(int wave, const ExpertWeightGradients& gradients) override {
    log_ += "g";
    const auto experts = experts_of(wave);
    gradients_.gate_up.index_add_(0, experts, gradients.gate_up);
    gradients_.down.index_add_(0, experts, gradients.down);
    gradients_.gate_up_bias.index_add_(0, experts, gradients.gate_up_bias);
    gradients_.down_bias.index_add_(0, experts, gradients.down_bias);
  }

  const ExpertWeightGradients& gradients() const { return gradients_; }
  const std::string& log() const { return log_; }
  void set_buffers(const ExpertWeightGradients& buffers) { buffers_ = buffers; }
  // Serves weights of wrong sizes when the log has come to this.
  void throw_at(const std::string& log) { throw_at_ = log; }

 private:
  at::Tensor experts_of(int wave) const { return at::arange(wave, weights_.num_places(), num_waves_); }

  ExpertWeights weights_, in_use_;
  int num_waves_;
  bool requires_grad_;
  ExpertWeightGradients gradients_, buffers_;
  std::string log_, throw_at_;
};

void expect_gradients(const ExpertWeightGradients& found, const Tensors& expected, double tolerance) {
  expect_close("gate_up", found.gate_up, expected[2], tolerance);
  expect_close("down", found.down, expected[3], tolerance);
  expect_close("gate_up_bias", found.gate_up_bias, expected[4], tolerance);
  expect_close("down_bias", found.down_bias, expected[5], tolerance);
}

// dx, dgate_weights, dgate_up, ddown, dgate_up_bias, ddown_bias with the weights as tensors.
Tensors tensor_gradients(const ExpertProblem& problem) {
  auto weights = problem.weights;
  for (auto* tensor : {&weights.gate_up, &weights.down, &weights.gate_up_bias, &weights.down_bias}) {
    *tensor = leaf(*tensor);
  }
  const auto x = leaf(problem.x), gate_weights = leaf(problem.gate_weights);
  return gradients(ops::expert_ffn(x, gate_weights, problem.plan, weights),
                   {x, gate_weights, weights.gate_up, weights.down, weights.gate_up_bias, weights.down_bias},
                   problem.dy);
}

TEST(WeightSource, WavesAddUpToTheWhole) {
  for (const auto& precision : cpu_precisions()) {
    for (const int num_waves : {1, 2, 4}) {
      SCOPED_TRACE(precision.name + " waves " + std::to_string(num_waves));
      const auto problem = make_expert_problem({.dtype = precision.dtype, .bias = true});
      const auto source = std::make_shared<WaveSource>(problem.weights, num_waves);
      const auto x = leaf(problem.x), gate_weights = leaf(problem.gate_weights);
      const auto y = ops::expert_ffn(x, gate_weights, problem.plan, source);
      expect_same_bits("y", y,
                       ops::expert_ffn(problem.x, problem.gate_weights, problem.plan, problem.weights));
      y.backward(problem.dy);
      const auto expected = tensor_gradients(problem);
      expect_close("dx", x.grad(), expected[0], precision.tolerance);
      expect_same_bits("dgate_weights", gate_weights.grad(), expected[1]);
      expect_gradients(source->gradients(), expected, 0);
    }
  }
}

TEST(WeightSource, IsAskedWaveByWaveInOrder) {
  const auto problem = make_expert_problem({.bias = true});
  const auto source = std::make_shared<WaveSource>(problem.weights, 2);
  const auto x = leaf(problem.x);
  const auto y = ops::expert_ffn(x, problem.gate_weights, problem.plan, source);
  EXPECT_EQ(source->log(), "f0r f1r ");
  y.backward(problem.dy);
  EXPECT_EQ(source->log(), "f0r f1r b0gr b1gr ");
}

TEST(WeightSource, GetsGradientsWhereNoInputWantsOne) {
  const auto problem = make_expert_problem({.bias = true});
  const auto source = std::make_shared<WaveSource>(problem.weights, 2);
  const auto y = ops::expert_ffn(problem.x, problem.gate_weights, problem.plan, source);
  EXPECT_TRUE(y.requires_grad());
  y.backward(problem.dy);
  expect_gradients(source->gradients(), tensor_gradients(problem), 0);
}

TEST(WeightSource, GetsNoGradientsThatItDoesNotWant) {
  const auto problem = make_expert_problem({.bias = true});
  const auto frozen = std::make_shared<WaveSource>(problem.weights, 2, /*requires_grad=*/false);
  EXPECT_FALSE(ops::expert_ffn(problem.x, problem.gate_weights, problem.plan, frozen).requires_grad());
  const auto x = leaf(problem.x);
  ops::expert_ffn(x, problem.gate_weights, problem.plan, frozen).backward(problem.dy);
  expect_close("dx", x.grad(), tensor_gradients(problem)[0], 1e-6);
  EXPECT_EQ(frozen->log(), "f0r f1r f0r f1r b0r b1r ");

  // A call for other gradients only leaves the source's alone.
  const auto source = std::make_shared<WaveSource>(problem.weights, 2);
  gradients(ops::expert_ffn(x, problem.gate_weights, problem.plan, source), {x}, problem.dy);
  EXPECT_EQ(source->log(), "f0r f1r b0r b1r ");
}

TEST(WeightSource, HasGradientsAddedInPlace) {
  const auto problem = make_expert_problem({.bias = true});
  const auto source = std::make_shared<WaveSource>(problem.weights, 1);
  const auto ones = [](const at::Tensor& like) { return at::full(like.sizes(), 1, like.options()); };
  const auto& w = problem.weights;
  const ExpertWeightGradients buffers = {ones(w.gate_up), ones(w.down), ones(w.gate_up_bias),
                                         ones(w.down_bias)};
  source->set_buffers(buffers);
  ops::expert_ffn(problem.x, problem.gate_weights, problem.plan, source).backward(problem.dy);
  auto expected = tensor_gradients(problem);
  for (auto& gradient : expected) {
    gradient = gradient.add(1);
  }
  expect_gradients(buffers, expected, 1e-6);
  expect_same_bits("handed over", source->gradients().gate_up, buffers.gate_up);
}

TEST(WeightSource, GetsItsWavesBackOnErrors) {
  const auto problem = make_expert_problem({.bias = true});
  const auto source = std::make_shared<WaveSource>(problem.weights, 2);
  source->throw_at("f0r f1");
  const auto message =
      error_of([&] { ops::expert_ffn(problem.x, problem.gate_weights, problem.plan, source); });
  EXPECT_EQ(message, "[expert_rows] expected down [P, D, F] = [any, 37, any], got [2, 1, 19]");
  EXPECT_EQ(source->log(), "f0r f1r ");
}

TEST(WeightSource, WorksWithoutRows) {
  for (const auto spread : {Spread::kNoRows, Spread::kNoTokens}) {
    const auto problem = make_expert_problem({.spread = spread, .bias = true});
    const auto source = std::make_shared<WaveSource>(problem.weights, 2);
    const auto x = leaf(problem.x);
    const auto y = ops::expert_ffn(x, problem.gate_weights, problem.plan, source);
    y.backward(problem.dy);
    expect_same_bits("y", y, at::zeros_like(problem.x));
    expect_same_bits("dx", x.grad(), at::zeros_like(problem.x));
    expect_gradients(source->gradients(), tensor_gradients(problem), 0);
  }
}

// Bytes that live because of forward, but for y.
TEST(WeightSource, NodeKeepsXAndHiddenOnly) {
  for (const auto& precision : cpu_precisions()) {
    SCOPED_TRACE(precision.name);
    const auto problem =
        make_expert_problem({.dtype = precision.dtype, .num_tokens = 64, .width = 256, .expert_width = 32});
    const auto x = leaf(problem.x), gate_weights = leaf(problem.gate_weights);
    auto weights = problem.weights;
    weights.gate_up = leaf(weights.gate_up);
    weights.down = leaf(weights.down);
    const int64_t num_rows = problem.plan.max_rows();
    const int64_t hidden_bytes = num_rows * 2 * 32 * problem.x.element_size();
    const int64_t row_bytes = num_rows * 256 * problem.x.element_size();
    ASSERT_GT(num_rows, 30);

    const bench::MemoryMeter meter;
    const auto y = ops::expert_ffn(x, gate_weights, problem.plan, weights);
    EXPECT_EQ(meter.live_bytes() - static_cast<int64_t>(y.nbytes()), hidden_bytes);
    EXPECT_LE(meter.live_bytes(), meter.peak_bytes());
    // The output rows lived, once, while they were summed.
    EXPECT_GE(meter.peak_bytes(), hidden_bytes + row_bytes);
    EXPECT_LT(meter.peak_bytes(), static_cast<int64_t>(y.nbytes()) + hidden_bytes + 2 * row_bytes);
  }
}

TEST(WeightSource, NodeFreesWhatItKeepsAfterBackward) {
  const auto problem = make_expert_problem({.bias = true, .num_tokens = 64});
  const auto source = std::make_shared<WaveSource>(problem.weights, 1);
  const auto x = leaf(problem.x);
  const bench::MemoryMeter meter;
  const auto y = ops::expert_ffn(x, problem.gate_weights, problem.plan, source);
  const int64_t kept = meter.live_bytes();
  y.backward(problem.dy);
  EXPECT_LT(meter.live_bytes() - static_cast<int64_t>(x.grad().nbytes()), kept);
  const auto message = error_of([&] { y.backward(problem.dy); });
  EXPECT_NE(message.find("second time"), std::string::npos) << message;
}

TEST(WeightSource, NamesWhatIsWrong) {
  const auto problem = make_expert_problem({});
  EXPECT_EQ(error_of([&] {
              ops::expert_ffn(problem.x, problem.gate_weights, problem.plan, std::shared_ptr<WeightSource>());
            }),
            "[expert_ffn] expected a weight source, got none");
  const auto with_bias = make_expert_problem({.bias = true});
  EXPECT_EQ(error_of([&] {
              ops::expert_ffn(problem.x, problem.gate_weights, problem.plan,
                              std::make_shared<WaveSource>(with_bias.weights, 0));
            }),
            "[expert_ffn] expected a weight source of at least one wave, got 0");
}

}  // namespace
}  // namespace motley::test
