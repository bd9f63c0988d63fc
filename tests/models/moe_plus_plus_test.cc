#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "motley/base/concat.h"
#include "motley/io/atomic_file.h"
#include "motley/models/registry.h"
#include "tests/io/temporary_folder.h"
#include "tests/models/golden_model.h"

namespace motley {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

constexpr double kTolerance = 1e-4;

PackedBatch batch_of(const std::vector<std::vector<int64_t>>& sequences, int64_t first_position = 0) {
  PackedBatch batch;
  batch.sequence_offset = {0};
  std::vector<at::Tensor> ids, positions;
  for (const auto& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.size());
    ids.push_back(at::tensor(sequence, at::kLong));
    positions.push_back(at::arange(first_position, first_position + length, at::kLong));
    batch.sequence_offset.push_back(batch.sequence_offset.back() + length);
  }
  batch.ids = at::cat(ids);
  batch.positions = at::cat(positions);
  return batch;
}

TEST(MoePlusPlus, GivesTheAuthorsLogits) {
  const GoldenModel golden;
  const auto model = load_model(golden.folder);
  EXPECT_EQ(model->vocab_size(), 307);
  EXPECT_EQ(model->num_experts(), (std::vector<int64_t>{4, 4, 4}));
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    EXPECT_LT(golden.error(i, model->forward(batch_of({golden.prompts[i]}), {}).logits), kTolerance) << i;
  }
}

TEST(MoePlusPlus, GivesTheAuthorsLogitsForAllPromptsAsOneBatch) {
  const GoldenModel golden;
  const auto model = load_model(golden.folder);
  const PackedBatch batch = batch_of(golden.prompts);
  const auto logits = model->forward(batch, {}).logits;
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    EXPECT_LT(golden.error(i, logits.slice(0, batch.sequence_offset[i], batch.sequence_offset[i + 1])),
              kTolerance);
  }
}

TEST(MoePlusPlus, GivesTheAuthorsLogitsTokenByToken) {
  const GoldenModel golden;
  const auto model = load_model(golden.folder);
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    KvCache cache(model->kv_cache_shape(), at::kFloat, 8);
    ForwardOptions options;
    options.cache = &cache;
    options.cache_sequences = {cache.add_sequence()};
    std::vector<at::Tensor> rows;
    for (size_t t = 0; t < golden.prompts[i].size(); ++t) {
      rows.push_back(
          model->forward(batch_of({{golden.prompts[i][t]}}, static_cast<int64_t>(t)), options).logits);
    }
    EXPECT_EQ(cache.length(options.cache_sequences[0]), static_cast<int64_t>(golden.prompts[i].size()));
    EXPECT_LT(golden.error(i, at::cat(rows)), kTolerance) << i;
  }
}

TEST(MoePlusPlus, SavesUnderThePublishedNames) {
  const GoldenModel golden;
  const auto model = load_model(golden.folder);
  TemporaryFolder folder;
  save_model(*model, folder.path());
  const TensorFolder expected(golden.folder), found(folder.path());
  EXPECT_EQ(found.names(), expected.names());
  for (const std::string& name : expected.names()) {
    EXPECT_TRUE(at::equal(found.tensor(name), expected.tensor(name))) << name;
  }
  EXPECT_LT(golden.error(1, load_model(folder.path())->forward(batch_of({golden.prompts[1]}), {}).logits),
            kTolerance);
}

// A copy of the golden folder with one key of config.json changed; the error that loading it gives.
std::string error_with(const std::string& key, const nlohmann::json& value) {
  const GoldenModel golden;
  TemporaryFolder folder;
  fs::copy_file(golden.folder / "model.safetensors", folder / "model.safetensors");
  auto config = read_json_file((golden.folder / "config.json").string());
  if (value.is_null()) {
    config.erase(key);
  } else {
    config[key] = value;
  }
  write_file_atomic(folder / "config.json", config.dump());
  const std::string message = user_error([&] { load_model(folder.path()); });
  EXPECT_THAT(message, HasSubstr(folder.path().string()));
  return message;
}

TEST(MoePlusPlus, RefusesConfigurationsThatWouldGiveOtherResults) {
  EXPECT_THAT(error_with("moe_use_mixtral_gating", true), HasSubstr("moe_use_mixtral_gating"));
  EXPECT_THAT(error_with("moe_2layer_gate", true), HasSubstr("moe_2layer_gate"));
  EXPECT_THAT(error_with("moe_feature_no_mul_topk", nullptr), HasSubstr("moe_feature_no_mul_topk"));
  EXPECT_THAT(error_with("moe_use_logits_norm", false), HasSubstr("moe_use_logits_norm"));
  EXPECT_THAT(error_with("rope_scaling", {{"type", "linear"}, {"factor", 2.0}}), HasSubstr("rope_scaling"));
  EXPECT_THAT(error_with("hidden_act", "gelu"), HasSubstr("hidden_act"));
  EXPECT_THAT(error_with("num_experts", {4}), HasSubstr("num_experts"));
  EXPECT_THAT(error_with("num_experts", {8, 8}), HasSubstr("num_experts"));
  EXPECT_THAT(error_with("vocab_size", nullptr), HasSubstr("vocab_size"));
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_attention_heads",
                          "max_position_embeddings", "num_hidden_layers", "eos_token_id"}) {
    EXPECT_THAT(error_with(key, int64_t{1} << 40), AllOf(HasSubstr(key), HasSubstr("found 1099511627776")));
  }
  EXPECT_THAT(error_with("num_experts", {int64_t{1} << 40}), HasSubstr("from 1 to 65536"));
  EXPECT_THAT(error_with("initializer_range", -1),
              HasSubstr("initializer_range: expected a number of at least 0"));
}

TEST(MoePlusPlus, NamesTensorsThatDoNotFitTheConfiguration) {
  EXPECT_THAT(error_with("intermediate_size", 41),
              AllOf(HasSubstr("experts.0.up_proj.weight"), HasSubstr("82, 48"), HasSubstr("80, 48")));
  EXPECT_THAT(error_with("num_experts", {9}), HasSubstr("model.layers.0.mlp.moe.gate.wg.weight"));
  EXPECT_THAT(error_with("num_hidden_layers", 4), HasSubstr("model.layers.3."));
  EXPECT_THAT(error_with("num_hidden_layers", 2), HasSubstr("model.layers.2."));
}

TEST(MoePlusPlus, PassesOverKeysWithoutEffect) {
  const GoldenModel golden;
  TemporaryFolder folder;
  fs::copy_file(golden.folder / "model.safetensors", folder / "model.safetensors");
  auto config = read_json_file((golden.folder / "config.json").string());
  config["use_cache"] = true;
  config["transformers_version"] = "4.33.1";
  write_file_atomic(folder / "config.json", config.dump());
  EXPECT_EQ(load_model(folder.path())->vocab_size(), 307);
}

TEST(MoePlusPlus, PickledWeightsAreAnErrorThatNamesTheConversion) {
  TemporaryFolder folder;
  fs::copy_file(GoldenModel().folder / "config.json", folder / "config.json");
  write_file_atomic(folder / "pytorch_model.bin", "x");
  EXPECT_THAT(user_error([&] { load_model(folder.path()); }),
              AllOf(HasSubstr("pytorch_model.bin"), HasSubstr("scripts/convert_pickle.py")));
}

}  // namespace
}  // namespace motley
