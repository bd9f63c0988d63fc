#include "motley/models/registry.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "motley/base/concat.h"
#include "motley/io/atomic_file.h"
#include "motley/io/safetensors.h"
#include "tests/io/temporary_folder.h"
#include "tests/models/small_config.h"

namespace motley {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

std::map<std::string, at::Tensor> tensors_of(CausalLm& model) {
  std::map<std::string, at::Tensor> tensors;
  model.visit([&](const std::string& name, at::Tensor& tensor, TensorRole) {
    EXPECT_FALSE(tensor.requires_grad()) << name;
    EXPECT_TRUE(tensors.emplace(name, tensor).second) << name;
  });
  return tensors;
}

bool same(CausalLm& a, CausalLm& b) {
  const auto left = tensors_of(a), right = tensors_of(b);
  if (left.size() != right.size()) return false;
  return std::all_of(left.begin(), left.end(), [&](const auto& each) {
    return right.contains(each.first) && at::equal(each.second, right.at(each.first));
  });
}

TEST(Registry, SeedAloneDecidesFreshWeights) {
  const auto model = make_model(small_config(), 1, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  EXPECT_TRUE(same(*model, *make_model(small_config(), 1, at::kFloat)));
  at::set_num_threads(threads);
  EXPECT_FALSE(same(*model, *make_model(small_config(), 2, at::kFloat)));
  const auto half = make_model(small_config(), 1, at::kBFloat16);
  const auto halves = tensors_of(*half);
  for (const auto& [name, tensor] : tensors_of(*model)) {
    const at::Tensor& other = halves.at(name);
    if (other.scalar_type() == at::kBFloat16) {
      EXPECT_TRUE(at::equal(other, tensor.to(at::kBFloat16))) << name;
    }
  }
}

TEST(Registry, FreshWeightsHaveTheWantedSpread) {
  nlohmann::json config = small_config();
  config["initializer_range"] = 0.5;
  const auto model = make_model(config, 1, at::kFloat);
  const auto tensors = tensors_of(*model);
  const auto deviation = [&](const std::string& name) { return tensors.at(name).std().item<double>(); };
  EXPECT_NEAR(deviation("model.embed_tokens.weight"), 0.5, 0.05);
  EXPECT_NEAR(deviation("model.layers.0.mlp.experts.gate_up_proj"), 0.5, 0.02);
  EXPECT_NEAR(deviation("model.layers.0.mlp.experts.down_proj"), 0.5 / std::sqrt(6.0), 0.02);
  EXPECT_TRUE(at::equal(tensors.at("model.norm.weight"), at::ones({32})));
  EXPECT_TRUE(at::equal(tensors.at("model.layers.2.input_layernorm.weight"), at::ones({32})));
}

TEST(Registry, NamesTensorsAsDocumented) {
  const auto tensors = tensors_of(*make_model(small_config(), 1, at::kFloat));
  const std::map<std::string, std::vector<int64_t>> expected = {
      {"model.embed_tokens.weight", {50, 32}},
      {"model.layers.1.self_attn.k_proj.weight", {16, 32}},
      {"model.layers.1.mlp.gate.weight", {7, 32}},
      {"model.layers.1.mlp.gate.residual.weight", {7, 7}},
      {"model.layers.1.mlp.experts.gate_up_proj", {4, 48, 32}},
      {"model.layers.1.mlp.experts.down_proj", {4, 32, 24}},
      {"model.layers.1.mlp.zero_experts.constant", {1, 32}},
      {"model.layers.1.mlp.zero_experts.constant_gate", {1, 2, 32}},
      {"lm_head.weight", {50, 32}}};
  for (const auto& [name, shape] : expected) {
    ASSERT_TRUE(tensors.contains(name)) << name;
    EXPECT_EQ(tensors.at(name).sizes().vec(), shape) << name;
  }
  // Nothing stands before the first MoE layer, so its gate has no residual weight.
  EXPECT_FALSE(tensors.contains("model.layers.0.mlp.gate.residual.weight"));
}

TEST(Registry, SavesAndLoadsWholeOrInShards) {
  for (const uint64_t shard_bytes : {uint64_t{1} << 30, uint64_t{20'000}}) {
    TemporaryFolder folder;
    const auto model = make_model(small_config(), 3, at::kBFloat16);
    save_model(*model, folder.path(), shard_bytes);
    const auto loaded = load_model(folder.path());
    EXPECT_EQ(loaded->dtype(), at::kBFloat16);
    EXPECT_TRUE(same(*model, *loaded));
    EXPECT_EQ(loaded->config(), model->config());
    EXPECT_EQ(load_model(folder.path(), {.dtype = at::kFloat})->dtype(), at::kFloat);
  }
}

TEST(Registry, FindsTheModelOfARun) {
  TemporaryFolder run;
  const auto write = [&](const std::string& place, uint64_t seed, const std::string& trainer = {}) {
    const fs::path folder = run.path() / place;
    fs::create_directories(folder);
    save_model(*make_model(small_config(), seed, at::kFloat), folder);
    if (!trainer.empty()) write_file_atomic(folder / "trainer.json", trainer);
  };
  const auto found = [&] { return find_model_folder(run.path()).lexically_relative(run.path()).string(); };
  write_file_atomic(run / "config.json", "{}");
  EXPECT_THAT(user_error([&] { load_model(run.path()); }), HasSubstr(run.path().string()));
  write("checkpoints/step_9", 1, R"({"best_step": null})");
  write("checkpoints/step_30", 2, R"({"best_step": null})");
  write("checkpoints/step_40.unfinished", 3);
  EXPECT_EQ(found(), "checkpoints/step_30");
  write("checkpoints/step_100", 4, R"({"best_step": 30})");
  EXPECT_EQ(found(), "checkpoints/step_30");
  write("model", 5);
  EXPECT_EQ(found(), "model");
  EXPECT_EQ(find_model_folder(run.path() / "checkpoints" / "step_9"), run.path() / "checkpoints" / "step_9");
}

TEST(Registry, DamagedFoldersAreOneClearError) {
  TemporaryFolder folder;
  const auto error = [&] { return user_error([&] { load_model(folder.path()); }); };
  EXPECT_THAT(user_error([&] { load_model(folder / "none"); }), HasSubstr("no such folder"));
  EXPECT_THAT(error(), HasSubstr(folder.path().string()));
  const auto model = make_model(small_config(), 3, at::kFloat);
  save_model(*model, folder.path());
  const auto config = model->config();

  auto other = config;
  other["model_type"] = "bert";
  write_file_atomic(folder / "config.json", other.dump());
  EXPECT_THAT(error(), AllOf(HasSubstr("bert"), HasSubstr("motley"), HasSubstr("MoE++")));
  other = config;
  other["num_hidden_layers"] = 2;
  write_file_atomic(folder / "config.json", other.dump());
  EXPECT_THAT(error(), HasSubstr("model.layers.2."));
  other = config;
  other["torch_dtype"] = "int8";
  write_file_atomic(folder / "config.json", other.dump());
  EXPECT_THAT(error(), HasSubstr("torch_dtype"));
  other = config;
  other["hidden_size"] = 64;
  write_file_atomic(folder / "config.json", other.dump());
  EXPECT_THAT(error(),
              AllOf(HasSubstr("model.embed_tokens.weight"), HasSubstr("50, 64"), HasSubstr("50, 32")));
  write_file_atomic(folder / "config.json", "{ not json");
  EXPECT_THAT(error(), HasSubstr("config.json"));
  fs::remove(folder / "config.json");
  EXPECT_THAT(error(), HasSubstr("config.json"));

  write_file_atomic(folder / "config.json", config.dump());
  fs::resize_file(folder / "model.safetensors", fs::file_size(folder / "model.safetensors") / 2);
  EXPECT_THAT(error(), HasSubstr("truncated"));
  write_safetensors(folder / "model.safetensors",
                    {{"model.embed_tokens.weight", at::zeros({50, 32}, at::kInt)}});
  EXPECT_THAT(error(), AllOf(HasSubstr("model.embed_tokens.weight"), HasSubstr("Int")));
}

TEST(Registry, RefusesDtypesThatItCannotTrain) {
  EXPECT_THAT(user_error([] { make_model(small_config(), 1, at::kHalf); }), HasSubstr("Half"));
}

}  // namespace
}  // namespace motley
