// The decoder as training sees it: gradients, auxiliary outputs, dense and sparse layers together.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "motley/models/registry.h"
#include "tests/models/small_config.h"

namespace motley {
namespace {

// On one thread: thousands of tiny parallel regions would mostly wait for each other.
class DecoderLm : public testing::Test {
 protected:
  DecoderLm() { at::set_num_threads(1); }
  ~DecoderLm() override { at::set_num_threads(threads_); }

 private:
  const int threads_ = at::get_num_threads();
};

PackedBatch random_batch(const std::vector<int64_t>& lengths) {
  PackedBatch batch;
  batch.sequence_offset = {0};
  std::vector<at::Tensor> positions;
  for (const int64_t length : lengths) {
    positions.push_back(at::arange(length, at::kLong));
    batch.sequence_offset.push_back(batch.sequence_offset.back() + length);
  }
  batch.positions = at::cat(positions);
  batch.ids = at::randint(50, {batch.sequence_offset.back()}, at::kLong);
  return batch;
}

nlohmann::json mixed_config() {
  nlohmann::json config = small_config();
  config["initializer_range"] = 0.3;
  config["intermediate_size"] = 40;
  config["mlp_layer_types"] = {"sparse", "dense", "sparse"};
  config["shared_expert_intermediate_size"] = 16;
  return config;
}

// Cross-entropy of the next token and the gates' losses.
at::Tensor loss_of(CausalLm& model, const PackedBatch& batch, bool recompute = false) {
  ForwardOptions options;
  options.training = true;
  options.recompute = recompute;
  const CausalLmOutput output = model.forward(batch, options);
  at::Tensor loss = at::cross_entropy_loss(output.logits.to(at::kFloat), batch.ids.roll(-1));
  for (const Routing& routing : output.routings) {
    for (const AuxiliaryLoss& each : routing.losses) loss = loss + each.value;
  }
  return loss;
}

TEST_F(DecoderLm, GradientsMatchFiniteDifferences) {
  at::manual_seed(5);
  const auto model = make_model(mixed_config(), 7, at::kFloat);
  const PackedBatch batch = random_batch({12, 12});
  model->visit([](const std::string&, at::Tensor& tensor, TensorRole role) {
    if (role == TensorRole::kParameter) tensor.requires_grad_(true);
  });
  loss_of(*model, batch).backward();
  const at::NoGradGuard no_grad;
  model->visit([&](const std::string& name, at::Tensor& tensor, TensorRole role) {
    if (role != TensorRole::kParameter) return;
    ASSERT_TRUE(tensor.grad().defined()) << name;
    // Along the gradient itself the slope is its squared norm. Steps are small enough to keep all choices.
    const double squared = tensor.grad().to(at::kDouble).pow(2).sum().item<double>();
    if (squared < 1e-10) return;
    const at::Tensor step = tensor.grad() * (2e-3 / std::sqrt(squared));
    tensor.add_(step);
    const double above = loss_of(*model, batch).item<double>();
    tensor.sub_(step, 2);
    const double below = loss_of(*model, batch).item<double>();
    tensor.add_(step);
    EXPECT_NEAR((above - below) / 4e-3, std::sqrt(squared), 0.02 * std::sqrt(squared) + 2e-3) << name;
  });
}

TEST_F(DecoderLm, GivesTheSameBitsWhereBlocksRunAgainInBackward) {
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{12, 12}, {3, 2}}) {
    const auto model = make_model(mixed_config(), 7, at::kFloat);
    const PackedBatch batch = random_batch(lengths);
    model->visit([](const std::string&, at::Tensor& tensor, TensorRole role) {
      if (role == TensorRole::kParameter) tensor.requires_grad_(true);
    });
    const at::Tensor expected = loss_of(*model, batch);
    expected.backward();
    std::vector<at::Tensor> gradients;
    model->visit([&](const std::string&, at::Tensor& tensor, TensorRole) {
      gradients.push_back(tensor.grad());
      tensor.mutable_grad().reset();
    });
    const at::Tensor loss = loss_of(*model, batch, /*recompute=*/true);
    loss.backward();
    EXPECT_TRUE(loss.equal(expected));
    size_t i = 0;
    model->visit([&](const std::string& name, at::Tensor& tensor, TensorRole) {
      ASSERT_EQ(tensor.grad().defined(), gradients[i].defined()) << name;
      if (tensor.grad().defined()) {
        EXPECT_TRUE(tensor.grad().equal(gradients[i])) << name;
      }
      ++i;
    });
  }
}

TEST_F(DecoderLm, PackedSequencesDoNotSeeEachOther) {
  const auto model = make_model(mixed_config(), 7, at::kFloat);
  const PackedBatch both = random_batch({9, 5});
  PackedBatch second;
  second.ids = both.ids.narrow(0, 9, 5);
  second.positions = both.positions.narrow(0, 9, 5);
  second.sequence_offset = {0, 5};
  const auto expected = model->forward(second, {}).logits;
  const auto found = model->forward(both, {}).logits.narrow(0, 9, 5);
  EXPECT_LT((found - expected).abs().max().item<double>(), 1e-4);
}

TEST_F(DecoderLm, GivesRoutingsLogitsOfChosenRowsAndEveryBlock) {
  const auto model = make_model(mixed_config(), 7, at::kFloat);
  const PackedBatch batch = random_batch({6, 4});
  std::vector<std::string> blocks;
  ForwardOptions options;
  options.output_rows = at::tensor({5, 9}, at::kLong);
  options.observe = [&](const std::string& name, const at::Tensor&) { blocks.push_back(name); };
  const CausalLmOutput output = model->forward(batch, options);
  const auto all = model->forward(batch, {}).logits;
  EXPECT_LT((output.logits - all.index_select(0, options.output_rows)).abs().max().item<double>(), 1e-5);
  EXPECT_EQ(output.moe_layers, (std::vector<int64_t>{0, 2}));
  ASSERT_EQ(output.routings.size(), 2u);
  EXPECT_EQ(output.routings[1].logits.sizes(), at::IntArrayRef({10, 7}));
  EXPECT_EQ(model->gates().size(), 2u);
  EXPECT_EQ(model->num_experts(), (std::vector<int64_t>{4, 4}));
  EXPECT_EQ(blocks,
            (std::vector<std::string>{"model.embed_tokens", "model.layers.0.self_attn", "model.layers.0.mlp",
                                      "model.layers.1.self_attn", "model.layers.1.mlp",
                                      "model.layers.2.self_attn", "model.layers.2.mlp", "lm_head"}));
}

// A gate of layer 2 sees the logits of layer 0, past the dense layer between them.
TEST_F(DecoderLm, HandsRouterLogitsFromMoeLayerToMoeLayer) {
  const auto model = make_model(mixed_config(), 7, at::kFloat);
  const PackedBatch batch = random_batch({6});
  const CausalLmOutput before = model->forward(batch, {});
  at::Tensor residual;
  model->visit([&](const std::string& name, at::Tensor& tensor, TensorRole) {
    if (name == "model.layers.2.mlp.gate.residual.weight") residual = tensor;
  });
  ASSERT_TRUE(residual.defined());
  residual.add_(at::eye(7));
  const CausalLmOutput after = model->forward(batch, {});
  EXPECT_LT((after.routings[1].logits - before.routings[1].logits - before.routings[0].logits)
                .abs()
                .max()
                .item<double>(),
            1e-4);
}

TEST_F(DecoderLm, TiedHeadUsesTheEmbedding) {
  nlohmann::json config = mixed_config();
  config["tie_word_embeddings"] = true;
  const auto model = make_model(config, 7, at::kFloat);
  model->visit([](const std::string& name, at::Tensor&, TensorRole) { EXPECT_NE(name, "lm_head.weight"); });
  EXPECT_EQ(model->forward(random_batch({3}), {}).logits.size(1), 50);
}

TEST_F(DecoderLm, LearnsAFewTokensInBothDtypes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    at::manual_seed(6);
    nlohmann::json config = mixed_config();
    config["initializer_range"] = 0.1;
    const auto model = make_model(config, 7, dtype);
    const PackedBatch batch = random_batch({16, 16});
    model->visit([](const std::string&, at::Tensor& tensor, TensorRole) {
      if (c10::isFloatingType(tensor.scalar_type())) tensor.requires_grad_(true);
    });
    const double first = loss_of(*model, batch).item<double>();
    for (int step = 0; step < 40; ++step) {
      loss_of(*model, batch).backward();
      const at::NoGradGuard no_grad;
      model->visit([](const std::string&, at::Tensor& tensor, TensorRole) {
        if (!tensor.grad().defined()) return;
        tensor.sub_(tensor.grad().to(tensor.scalar_type()), 0.3);
        tensor.mutable_grad().reset();
      });
    }
    EXPECT_LT(loss_of(*model, batch).item<double>(), 0.6 * first);
  }
}

}  // namespace
}  // namespace motley
