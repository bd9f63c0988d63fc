#include "motley/train/run_config.h"

#include <set>

#include "motley/base/config_values.h"
#include "motley/base/env.h"
#include "motley/base/error.h"

namespace motley {
namespace {

// Largest sizes and counts, so that no product of them overflows.
constexpr double kMaxBatch = 1 << 20, kMaxSequence = 1 << 24, kMaxCount = 1e15;
constexpr int64_t kMaxTokensPerStep = int64_t{1} << 40;

DataConfig read_data(ConfigValues values) {
  DataConfig data;
  data.path = values.optional<std::string>("path", "");
  if (data.path.empty()) {
    values.fail("path", "a text file, a .gz file or a folder of them", "nothing",
                "set it or pass --data PATH");
  }
  data.tokenizer = values.choice("tokenizer", {"bytes"}, data.tokenizer);
  data.validation_fraction =
      values.optional<double>("validation_fraction", data.validation_fraction, between(0, 0.9));
  data.sequence_length = values.required<int64_t>("sequence_length", between(1, kMaxSequence));
  values.finish();
  return data;
}

// Keys that would have no effect, or that contradict another one.
void check_keys_together(const ConfigValues& values, const TrainOptions& train, const DataConfig& data) {
  const bool validates = data.validation_fraction > 0;
  // Three factors of 20, 20 and 24 bits: their product may not fit, those of two do.
  const int64_t sequences = train.batch_size * train.gradient_accumulation;
  if (sequences > kMaxTokensPerStep / data.sequence_length) {
    values.fail("batch_size",
                concat("at most ", kMaxTokensPerStep, " tokens a step with gradient_accumulation ",
                       train.gradient_accumulation, " and data.sequence_length ", data.sequence_length),
                concat(train.batch_size));
  }
  if (train.min_learning_rate > train.learning_rate) {
    values.fail("min_learning_rate", concat("at most train.learning_rate = ", train.learning_rate),
                concat(train.min_learning_rate));
  }
  if (train.schedule == Schedule::kConstant && values.has("min_learning_rate")) {
    values.fail("min_learning_rate", "no such key with train.schedule = \"constant\"",
                concat(train.min_learning_rate), "leave one of them out");
  }
  if (train.warmup_steps >= train.steps) {
    values.fail("warmup_steps", concat("less than train.steps = ", train.steps), concat(train.warmup_steps));
  }
  for (const char* key : {"eval_every", "eval_tokens", "keep_best"}) {
    const bool asked = values.has(key) && values.object().at(key) != 0 && values.object().at(key) != false;
    if (asked && !validates) {
      values.fail(key, "no such key with data.validation_fraction = 0", values.object().at(key).dump(),
                  "leave one of them out");
    }
  }
  if (train.eval_tokens > 0 && train.eval_tokens < data.sequence_length) {
    values.fail("eval_tokens", concat("0 for all, or at least data.sequence_length = ", data.sequence_length),
                concat(train.eval_tokens));
  }
  for (const char* key : {"sample_every", "sample_prompt", "sample_temperature"}) {
    const bool asked = values.has(key) && values.object().at(key) != 0;
    if (asked && train.sample_tokens == 0) {
      values.fail(key, "no such key with train.sample_tokens = 0", values.object().at(key).dump(),
                  "leave one of them out");
    }
  }
}

TrainOptions read_train(ConfigValues values, const DataConfig& data) {
  TrainOptions train;
  train.steps = values.required<int64_t>("steps", between(1, kMaxCount));
  train.batch_size = values.required<int64_t>("batch_size", between(1, kMaxBatch));
  train.gradient_accumulation =
      values.optional<int64_t>("gradient_accumulation", train.gradient_accumulation, between(1, kMaxBatch));
  train.learning_rate = values.required<double>("learning_rate", at_least(0));
  train.min_learning_rate =
      values.optional<double>("min_learning_rate", train.min_learning_rate, at_least(0));
  train.warmup_steps = values.optional<int64_t>("warmup_steps", train.warmup_steps, between(0, kMaxCount));
  train.schedule = values.choice("schedule", {"cosine", "constant"}, "cosine") == "cosine"
                       ? Schedule::kCosine
                       : Schedule::kConstant;
  train.weight_decay = values.optional<double>("weight_decay", train.weight_decay, at_least(0));
  train.beta1 = values.optional<double>("beta1", train.beta1, between(0, 0.999999));
  train.beta2 = values.optional<double>("beta2", train.beta2, between(0, 0.999999));
  train.epsilon = values.optional<double>("epsilon", train.epsilon, at_least(1e-30));
  train.gradient_clip = values.optional<double>("gradient_clip", train.gradient_clip, at_least(0));
  train.activation_checkpointing =
      values.optional<bool>("activation_checkpointing", train.activation_checkpointing);
  train.dtype = values.choice("dtype", {"fp32", "bf16"}, "fp32") == "fp32" ? at::kFloat : at::kBFloat16;
  train.seed = static_cast<uint64_t>(values.optional<int64_t>("seed", 0, at_least(0)));
  train.device = values.optional<std::string>("device", train.device);
  train.threads = values.optional<int64_t>("threads", train.threads, between(0, kMaxThreads));
  train.eval_every = values.optional<int64_t>("eval_every", train.eval_every, at_least(0));
  train.eval_tokens = values.optional<int64_t>("eval_tokens", train.eval_tokens, at_least(0));
  train.checkpoint_every = values.optional<int64_t>("checkpoint_every", train.checkpoint_every, at_least(0));
  train.keep_checkpoints = values.optional<int64_t>("keep_checkpoints", train.keep_checkpoints, at_least(1));
  train.keep_best = values.optional<bool>("keep_best", data.validation_fraction > 0);
  train.log_every = values.optional<int64_t>("log_every", train.log_every, at_least(1));
  train.sample_every = values.optional<int64_t>("sample_every", train.sample_every, at_least(0));
  train.sample_prompt = values.optional<std::string>("sample_prompt", train.sample_prompt);
  train.sample_tokens =
      values.optional<int64_t>("sample_tokens", train.sample_tokens, between(0, kMaxSequence));
  train.sample_temperature =
      values.optional<double>("sample_temperature", train.sample_temperature, at_least(0));
  train.max_minutes = values.optional<double>("max_minutes", train.max_minutes, at_least(0));
  values.finish();
  check_keys_together(values, train, data);
  if (train.sample_tokens > 0 && train.sample_prompt.empty()) {
    values.fail("sample_prompt", "at least one character", "\"\"",
                "train.sample_tokens = 0 turns samples off");
  }
  return train;
}

void find_difference(const nlohmann::json& a, const nlohmann::json& b, const std::string& path,
                     std::string& difference) {
  if (!difference.empty() || path == "data.path" || path == "train.max_minutes" || a == b) return;
  if (!a.is_object() || !b.is_object()) {
    difference = path;
    return;
  }
  std::set<std::string> keys;
  for (const auto& item : a.items()) keys.insert(item.key());
  for (const auto& item : b.items()) keys.insert(item.key());
  for (const auto& key : keys) {
    find_difference(a.value(key, nlohmann::json()), b.value(key, nlohmann::json()),
                    path.empty() ? key : path + "." + key, difference);
  }
}

}  // namespace

RunConfig parse_run_config(const nlohmann::json& json, const std::string& source) {
  ConfigValues values(json, source);
  RunConfig config;
  config.source = source;
  config.model = values.section("model").object();
  config.data = read_data(values.section("data"));
  config.train = read_train(values.section("train"), config.data);
  values.finish();
  return config;
}

std::string place_of(const RunConfig& config, const std::string& key) {
  return config.source.empty() ? key : concat(config.source, ": ", key);
}

nlohmann::json to_json(const RunConfig& config) {
  const DataConfig& data = config.data;
  const TrainOptions& train = config.train;
  nlohmann::json json = {
      {"model", config.model},
      {"data",
       {{"path", data.path},
        {"tokenizer", data.tokenizer},
        {"validation_fraction", data.validation_fraction},
        {"sequence_length", data.sequence_length}}},
      {"train",
       {{"steps", train.steps},
        {"batch_size", train.batch_size},
        {"gradient_accumulation", train.gradient_accumulation},
        {"learning_rate", train.learning_rate},
        {"warmup_steps", train.warmup_steps},
        {"schedule", train.schedule == Schedule::kCosine ? "cosine" : "constant"},
        {"weight_decay", train.weight_decay},
        {"beta1", train.beta1},
        {"beta2", train.beta2},
        {"epsilon", train.epsilon},
        {"gradient_clip", train.gradient_clip},
        {"activation_checkpointing", train.activation_checkpointing},
        {"dtype", train.dtype == at::kFloat ? "fp32" : "bf16"},
        {"seed", train.seed},
        {"device", train.device},
        {"threads", train.threads},
        {"checkpoint_every", train.checkpoint_every},
        {"keep_checkpoints", train.keep_checkpoints},
        {"keep_best", train.keep_best},
        {"log_every", train.log_every},
        {"sample_tokens", train.sample_tokens},
        {"max_minutes", train.max_minutes}}},
  };
  // Keys that would contradict the others are left out.
  if (train.schedule == Schedule::kCosine) json["train"]["min_learning_rate"] = train.min_learning_rate;
  if (data.validation_fraction > 0) {
    json["train"]["eval_every"] = train.eval_every;
    json["train"]["eval_tokens"] = train.eval_tokens;
  }
  if (train.sample_tokens > 0) {
    json["train"]["sample_every"] = train.sample_every;
    json["train"]["sample_prompt"] = train.sample_prompt;
    json["train"]["sample_temperature"] = train.sample_temperature;
  }
  return json;
}

std::string first_difference(const nlohmann::json& a, const nlohmann::json& b) {
  std::string difference;
  find_difference(a, b, "", difference);
  return difference;
}

}  // namespace motley
