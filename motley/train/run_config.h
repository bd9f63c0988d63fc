// What a training run is asked to do: the configuration file of `motley train`, key by key.
// docs/configuration.md lists every key with its meaning and default.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace motley {

struct DataConfig {
  std::string path;  // a text file, a .gz file or a folder of them
  std::string tokenizer = "bytes";
  double validation_fraction = 0.1;  // the last part of the text; 0: no validation
  int64_t sequence_length = 0;       // predicted tokens of a training sequence, required
};

enum class Schedule { kCosine, kConstant };

struct TrainOptions {
  int64_t steps = 0;                  // optimizer steps, required
  int64_t batch_size = 0;             // sequences in one forward pass, required
  int64_t gradient_accumulation = 1;  // forward passes in one step
  double learning_rate = 0;           // required
  double min_learning_rate = 0;       // where the cosine ends
  int64_t warmup_steps = 0;           // linear, from 0
  Schedule schedule = Schedule::kCosine;
  double weight_decay = 0.1;  // not on norms, biases and vectors
  double beta1 = 0.9, beta2 = 0.95;
  double epsilon = 1e-8;
  double gradient_clip = 1.0;             // of the global norm; 0: none
  bool activation_checkpointing = false;  // keep the inputs of blocks alone and run them again in backward
  at::ScalarType dtype = at::kFloat;      // bf16: with fp32 master weights and moments
  uint64_t seed = 0;                      // of the initial weights, the order of data and samples
  std::string device = "cpu";             // or cuda, cuda:<n>
  int64_t threads = 0;                    // 0: all that this process may use
  int64_t eval_every = 0;                 // steps; 0: only at the end
  int64_t eval_tokens = 0;                // of the validation text at eval_every; 0: all. The end takes all.
  int64_t checkpoint_every = 0;           // steps; 0: only at the end and when stopped
  int64_t keep_checkpoints = 2;           // the last k
  bool keep_best = true;                  // and the one with the lowest validation loss
  int64_t log_every = 10;                 // steps in one line of metrics.jsonl
  int64_t sample_every = 0;               // steps; 0: only at the end
  std::string sample_prompt = "\n";
  int64_t sample_tokens = 200;  // 0: no samples
  double sample_temperature = 0.8;
  double max_minutes = 0;  // of training, over all restarts; 0: no limit
};

struct RunConfig {
  std::string source;    // the file, for errors
  nlohmann::json model;  // the model's config.json
  DataConfig data;
  TrainOptions train;
};

// "c.json: train.steps", for errors about a key that only show later.
std::string place_of(const RunConfig& config, const std::string& key);

// Throws UserError naming the key: unknown (with the nearest known one), missing, out of range, without
// effect, or in contradiction to another. The model section is checked where the model is made.
RunConfig parse_run_config(const nlohmann::json& json, const std::string& source);

// Every key with the value in use; parse_run_config(to_json(c)) gives c again.
nlohmann::json to_json(const RunConfig& config);

// The dotted path of the first key on which two configurations differ, "" if none. data.path and
// train.max_minutes are passed over: the one is compared by content, the other changes no weights.
std::string first_difference(const nlohmann::json& a, const nlohmann::json& b);

}  // namespace motley
