#include "motley/train/run_config.h"

#include <gtest/gtest.h>

#include "motley/base/error.h"

namespace motley {
namespace {

using nlohmann::json;

json minimal() {
  return {{"model", {{"model_type", "motley"}}},
          {"data", {{"path", "a.txt"}, {"sequence_length", 16}}},
          {"train", {{"steps", 10}, {"batch_size", 2}, {"learning_rate", 1e-3}}}};
}

std::string error_of(const json& config) {
  try {
    parse_run_config(config, "c.json");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

json with(const std::string& section, const std::string& key, const json& value) {
  json config = minimal();
  config[section][key] = value;
  return config;
}

void expect_error(const json& config, const std::vector<std::string>& parts) {
  const std::string error = error_of(config);
  for (const auto& part : parts) EXPECT_NE(error.find(part), std::string::npos) << part << " in: " << error;
  EXPECT_EQ(error.rfind("c.json: ", 0), 0u) << error;
}

TEST(RunConfig, FillsInDefaults) {
  const RunConfig config = parse_run_config(minimal(), "c.json");
  EXPECT_EQ(config.data.tokenizer, "bytes");
  EXPECT_EQ(config.data.validation_fraction, 0.1);
  EXPECT_EQ(config.train.dtype, at::kFloat);
  EXPECT_TRUE(config.train.keep_best);
}

TEST(RunConfig, RoundTrips) {
  json changed = minimal();
  changed["train"]["dtype"] = "bf16";
  changed["train"]["schedule"] = "constant";
  changed["train"]["sample_tokens"] = 0;
  changed["data"]["validation_fraction"] = 0;
  for (const json& config : {minimal(), changed}) {
    const json full = to_json(parse_run_config(config, "c.json"));
    EXPECT_EQ(to_json(parse_run_config(full, "c.json")), full);
  }
}

TEST(RunConfig, NamesUnknownKeysAndTheNearestKnownOne) {
  expect_error(with("train", "learning_rat", 1), {"c.json", "train.learning_rat", "learning_rate"});
  expect_error(with("data", "pth", "x"), {"data.pth", "path"});
  json config = minimal();
  config["trian"] = json::object();
  expect_error(config, {"trian", "train"});
}

TEST(RunConfig, NamesMissingAndWrongValues) {
  json config = minimal();
  config["train"].erase("steps");
  expect_error(config, {"train.steps"});
  config = minimal();
  config["data"].erase("path");
  expect_error(config, {"data.path", "--data"});
  expect_error(with("train", "steps", 0), {"train.steps", "0"});
  expect_error(with("train", "dtype", "fp8"), {"train.dtype", "fp32", "bf16", "fp8"});
  expect_error(with("train", "learning_rate", "fast"), {"train.learning_rate", "fast"});
  expect_error(with("data", "tokenizer", "bpe"), {"data.tokenizer", "bytes"});
}

TEST(RunConfig, RefusesSizesWhoseProductsOverflow) {
  expect_error(with("train", "batch_size", 4000000000000000000), {"train.batch_size", "4000000000000000000"});
  expect_error(with("train", "gradient_accumulation", 1e9), {"train.gradient_accumulation"});
  expect_error(with("train", "sample_tokens", 9e18), {"train.sample_tokens"});
  expect_error(with("data", "sequence_length", 1e9), {"data.sequence_length"});
  json config = with("train", "batch_size", 1 << 20);
  config["train"]["gradient_accumulation"] = 1 << 20;
  config["data"]["sequence_length"] = 1 << 24;
  expect_error(config, {"train.batch_size", "tokens a step"});
}

TEST(RunConfig, NamesContradictions) {
  expect_error(with("train", "min_learning_rate", 1), {"train.min_learning_rate", "0.001"});
  expect_error(with("train", "warmup_steps", 10), {"train.warmup_steps", "10"});
  json config = with("train", "schedule", "constant");
  config["train"]["min_learning_rate"] = 1e-4;
  expect_error(config, {"train.min_learning_rate", "constant"});
  config = with("data", "validation_fraction", 0);
  config["train"]["eval_every"] = 5;
  expect_error(config, {"train.eval_every", "validation_fraction"});
  expect_error(with("train", "eval_tokens", 3), {"train.eval_tokens", "sequence_length"});
  config = with("train", "sample_tokens", 0);
  config["train"]["sample_every"] = 5;
  expect_error(config, {"train.sample_every", "sample_tokens"});
}

TEST(FirstDifference, NamesTheKey) {
  const json a = to_json(parse_run_config(minimal(), "c.json"));
  EXPECT_EQ(first_difference(a, a), "");
  json b = a;
  b["train"]["seed"] = 3;
  EXPECT_EQ(first_difference(a, b), "train.seed");
  b = a;
  b["model"]["hidden_size"] = 3;
  EXPECT_EQ(first_difference(a, b), "model.hidden_size");
  b = a;
  b["data"]["path"] = "elsewhere.txt";
  b["train"]["max_minutes"] = 3;
  EXPECT_EQ(first_difference(a, b), "");
}

}  // namespace
}  // namespace motley
