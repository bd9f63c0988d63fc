// Whole models on a GPU: the published MoE++ model against its authors' logits, and ours against the CPU.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>

#include "motley/infer/evaluate.h"
#include "motley/infer/generate.h"
#include "motley/models/registry.h"
#include "tests/models/golden_model.h"
#include "tests/models/small_config.h"
#include "tests/support/gpu.h"
#include "tests/support/precision.h"

namespace motley::test {
namespace {

using ModelOnGpu = OnGpu;

std::unique_ptr<CausalLm> load_on_gpu(const std::filesystem::path& folder) {
  LoadOptions options;
  options.device = at::kCUDA;
  return load_model(folder, options);
}

TEST_F(ModelOnGpu, GivesTheAuthorsLogitsOfMoePlusPlus) {
  const GoldenModel golden;
  const auto model = load_on_gpu(golden.folder);
  const auto logits = prompt_logits(*model, golden.prompts);
  for (size_t i = 0; i < golden.prompts.size(); ++i) EXPECT_LT(golden.error(i, logits[i].cpu()), 1e-4) << i;
}

TEST_F(ModelOnGpu, ContinuesMoePlusPlusAsTheAuthorsDo) {
  const GoldenModel golden;
  const auto model = load_on_gpu(golden.folder);
  GenerateOptions options;
  options.max_new_tokens = static_cast<int64_t>(golden.greedy[0].size());
  options.sampling.temperature = 0;
  const auto generated = generate(*model, golden.prompts, options);
  for (size_t i = 0; i < golden.prompts.size(); ++i) EXPECT_EQ(generated[i].tokens, golden.greedy[i]) << i;
}

struct Gradients {
  double loss;
  std::vector<std::string> names;
  std::vector<at::Tensor> values;
};

Gradients gradients_on(at::Device device, at::ScalarType dtype, const nlohmann::json& config) {
  auto model = make_model(config, /*seed=*/3, dtype);
  model->to(device);
  model->visit([](const std::string&, at::Tensor& tensor, TensorRole) { tensor.requires_grad_(true); });
  PackedBatch batch;
  batch.sequence_offset = {0, 30, 70};
  batch.positions = at::cat({at::arange(30, at::kLong), at::arange(40, at::kLong)});
  batch.ids = at::arange(70, at::kLong).mul(17).remainder(50);
  ForwardOptions options;
  options.training = true;
  const CausalLmOutput output = model->forward(batch, options);
  at::Tensor loss = at::cross_entropy_loss(output.logits.to(at::kFloat), batch.ids.roll(-1).to(device));
  for (const Routing& routing : output.routings) {
    for (const AuxiliaryLoss& each : routing.losses) loss = loss + each.value;
  }
  loss.backward();
  Gradients result{loss.item<double>(), {}, {}};
  model->visit([&](const std::string& name, at::Tensor& tensor, TensorRole) {
    result.names.push_back(name);
    result.values.push_back(tensor.grad());
  });
  return result;
}

TEST_F(ModelOnGpu, HasTheGradientsOfTheCpu) {
  nlohmann::json config = small_config();
  config["initializer_range"] = 0.2;
  for (const auto& precision : cpu_precisions()) {
    SCOPED_TRACE(precision.name);
    const auto cpu = gradients_on(at::kCPU, precision.dtype, config);
    const auto gpu = gradients_on(at::kCUDA, precision.dtype, config);
    const bool fp32 = precision.dtype == at::kFloat;
    EXPECT_NEAR(gpu.loss, cpu.loss, fp32 ? 1e-4 : 0.05);
    for (size_t i = 0; i < cpu.names.size(); ++i) {
      ASSERT_EQ(gpu.values[i].defined(), cpu.values[i].defined()) << cpu.names[i];
      if (!cpu.values[i].defined()) continue;
      // In bf16 a token near the edge between two slots may choose another one.
      expect_close(cpu.names[i], gpu.values[i], cpu.values[i], fp32 ? 1e-4 : 0.3);
    }
  }
}

TEST_F(ModelOnGpu, GeneratesWhatTheCpuGenerates) {
  nlohmann::json config = small_config();
  config["initializer_range"] = 0.3;
  const auto cpu = make_model(config, 5, at::kFloat), gpu = make_model(config, 5, at::kFloat);
  gpu->to(at::kCUDA);
  GenerateOptions options;
  options.max_new_tokens = 20;
  for (const double temperature : {0.0, 0.7}) {
    options.sampling.temperature = temperature;
    const std::vector<std::vector<int64_t>> prompts = {{1, 2, 3}, {7}, {9, 8, 7, 6, 5, 4, 3, 2, 1}};
    const auto expected = generate(*cpu, prompts, options), found = generate(*gpu, prompts, options);
    for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(found[i].tokens, expected[i].tokens) << i;
  }
}

}  // namespace
}  // namespace motley::test
