// The single expert operators on a GPU: expert_matmul, expert_sum, expert_outer, token_sum.
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include "motley/ops/expert_ffn.h"
#include "tests/support/gpu.h"
#include "tests/support/gradients.h"
#include "tests/support/precision.h"
#include "tests/support/reference.h"

namespace motley::test {
namespace {

using ExpertOperatorsOnGpu = OnGpu;

// An operator on the GPU, its reference on the CPU, and inputs that have no rows past the plan's last.
struct Pair {
  std::string name;
  std::function<at::Tensor(const Tensors&)> op, reference;
  Tensors inputs;
};

at::Tensor with_room(const at::Tensor& rows, int64_t max_rows) {
  return at::cat({rows, at::zeros({max_rows - rows.size(0), rows.size(1)}, rows.options())});
}

std::vector<Pair> all_pairs(const ExpertProblem& problem, int64_t out) {
  const auto cpu_plan = problem.plan;
  const auto plan = on_gpu(problem).plan;
  const int64_t width = problem.x.size(1), num_experts = problem.num_experts;
  const auto dtype = problem.x.scalar_type();
  const auto rows = random_values({cpu_plan.max_rows(), width}, dtype, 71);
  const auto dy_rows = random_values({cpu_plan.max_rows(), out}, dtype, 72);
  const auto weight = random_values({num_experts, out, width}, dtype, 73);
  const auto bias = random_values({num_experts, out}, dtype, 74);
  const auto places = at::tensor({3, 2, -1, 0}, at::TensorOptions().dtype(at::kInt));
  const auto room = [=](const at::Tensor& tensor) { return with_room(tensor, plan.max_rows()); };
  const auto cut = [=](const at::Tensor& tensor) { return tensor.narrow(0, 0, cpu_plan.max_rows()); };
  std::vector<Pair> pairs;
  for (const bool by_token : {true, false}) {
    for (const bool transposed : {true, false}) {
      for (const auto& place : {at::Tensor(), places}) {
        pairs.push_back(
            {std::string("expert_matmul") + (by_token ? " by token" : " by row") +
                 (transposed ? " transposed" : "") + (place.defined() ? " places" : ""),
             [=](const Tensors& in) {
               return cut(ops::expert_matmul(by_token ? in[0] : room(in[0]), in[1], in[2], plan,
                                             place.defined() ? std::optional(place.cuda()) : std::nullopt,
                                             by_token, transposed));
             },
             [=](const Tensors& in) {
               return reference_expert_matmul(in[0], in[1], in[2], cpu_plan, place, by_token, transposed);
             },
             {by_token ? problem.x : rows, transposed ? weight : weight.transpose(1, 2).contiguous(), bias}});
      }
    }
    pairs.push_back(
        {std::string("expert_outer") + (by_token ? " by token" : " by row"),
         [=](const Tensors& in) {
           return ops::expert_outer(room(in[0]), by_token ? in[1] : room(in[1]), plan, by_token);
         },
         [=](const Tensors& in) { return reference_expert_outer(in[0], in[1], cpu_plan, by_token); },
         {dy_rows, by_token ? problem.x : rows}});
  }
  pairs.push_back({"expert_sum",
                   [=](const Tensors& in) { return ops::expert_sum(room(in[0]), plan); },
                   [=](const Tensors& in) { return reference_expert_sum(in[0], cpu_plan); },
                   {rows}});
  pairs.push_back({"token_sum",
                   [=](const Tensors& in) { return ops::token_sum(room(in[0]), in[1], plan); },
                   [=](const Tensors& in) { return reference_token_sum(in[0], in[1], cpu_plan); },
                   {rows, problem.gate_weights}});
  return pairs;
}

TEST_F(ExpertOperatorsOnGpu, AgreeWithTheReference) {
  for (const auto& precision : gpu_precisions()) {
    for (const auto spread : all_spreads()) {
      for (const int64_t width : {37, 64}) {
        const auto problem = make_expert_problem(
            {.dtype = precision.dtype, .spread = spread, .num_tokens = 90, .width = width});
        for (const auto& pair : all_pairs(problem, width == 37 ? 21 : 40)) {
          SCOPED_TRACE(pair.name + " " + precision.name + " " + name_of(spread) + " width " +
                       std::to_string(width));
          Tensors inputs, cpu_inputs;
          for (const auto& input : pair.inputs) {
            inputs.push_back(leaf(input.cuda()));
            cpu_inputs.push_back(leaf(input));
          }
          const auto y = pair.op(inputs), expected = pair.reference(cpu_inputs);
          expect_close("result", y, expected, precision.tolerance);
          const auto dy = random_values(y.sizes(), y.scalar_type(), 5);
          const auto found = gradients(y, inputs, dy.cuda());
          const auto wanted = gradients(expected, cpu_inputs, dy.to(at::kDouble));
          for (size_t i = 0; i < inputs.size(); ++i) {
            const auto zeros = at::zeros_like(pair.inputs[i]);
            expect_close("gradient " + std::to_string(i), found[i], wanted[i].defined() ? wanted[i] : zeros,
                         precision.tolerance);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace motley::test
