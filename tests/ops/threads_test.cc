// Every expert operator, forward and backward, gives the same bits with any number of threads: with skewed
// and even loads, few rows and many, so that tasks are cut in every way there is.
#include <ATen/Parallel.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "motley/ops/expert_ffn.h"
#include "tests/support/expert_problem.h"
#include "tests/support/precision.h"

namespace motley::test {
namespace {

using Results = std::vector<std::pair<std::string, at::Tensor>>;

Results run_all(const ExpertProblem& p) {
  const int64_t max_rows = p.plan.row_assignment.size(0);
  const int64_t width = p.x.size(1);
  const at::Tensor& gate_up = p.weights.gate_up;
  at::Tensor rows = at::zeros({max_rows, width}, p.x.options());
  at::Tensor hidden = at::zeros({max_rows, gate_up.size(1)}, p.x.options());
  ops::expert_rows(p.x, p.plan, p.weights, rows, hidden);
  const at::Tensor y = ops::token_sum(rows, p.gate_weights, p.plan);
  const auto input = ops::expert_ffn_backward_input(p.dy, hidden, p.gate_weights, p.plan, p.weights);
  ExpertWeightGradients into;
  into.gate_up = at::full_like(gate_up, 0.25);
  into.down = at::full_like(p.weights.down, 0.25);
  const auto fresh = ops::expert_ffn_backward_weight(p.dy, p.x, input, p.gate_weights, p.plan, p.weights);
  ops::expert_ffn_backward_weight(p.dy, p.x, input, p.gate_weights, p.plan, p.weights, into);
  return {
      {"expert_rows", rows},
      {"hidden", hidden},
      {"token_sum", y},
      {"dx", input.dx},
      {"dgate_weights", input.dgate_weights},
      {"dhidden", ops::expert_sum(input.dhidden, p.plan)},
      {"gate_up gradient", fresh.gate_up},
      {"down gradient", fresh.down},
      {"gate_up gradient, added", into.gate_up},
      {"down gradient, added", into.down},
      {"expert_matmul", ops::expert_matmul(p.x, gate_up, {}, p.plan, {}, true)},
      {"expert_matmul, weight as it lies", ops::expert_matmul(hidden, gate_up, {}, p.plan, {}, false, false)},
      {"expert_outer", ops::expert_outer(hidden, p.x, p.plan, true)},
      {"expert_sum", ops::expert_sum(hidden, p.plan)}};
}

class ThreadsTest : public ::testing::TestWithParam<std::pair<at::ScalarType, int64_t>> {};

TEST_P(ThreadsTest, SameBitsWithAnyNumberOfThreads) {
  const auto [dtype, tokens] = GetParam();
  const int before = at::get_num_threads();
  for (const Spread spread : {Spread::kRandom, Spread::kOneGetsAll}) {
    ExpertProblemOptions options;
    options.dtype = dtype;
    options.spread = spread;
    options.num_tokens = tokens;
    options.width = 410;
    options.expert_width = 402;
    const ExpertProblem problem = make_expert_problem(options);
    at::set_num_threads(1);
    const Results expected = run_all(problem);
    for (const int threads : {2, 5}) {
      at::set_num_threads(threads);
      const Results found = run_all(problem);
      for (size_t i = 0; i < found.size(); ++i) {
        expect_same_bits(name_of(spread) + ", " + std::to_string(threads) + " threads, " + found[i].first,
                         found[i].second, expected[i].second);
      }
    }
  }
  at::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Expert, ThreadsTest,
                         ::testing::Values(std::pair{at::kFloat, int64_t{5}},
                                           std::pair{at::kFloat, int64_t{300}},
                                           std::pair{at::kBFloat16, int64_t{5}},
                                           std::pair{at::kBFloat16, int64_t{300}}));

}  // namespace
}  // namespace motley::test
