// A training checkpoint: a model folder with the optimizer's and the trainer's state beside the model.
// config.json, model*.safetensors, tokenizer.json, optimizer*.safetensors, trainer.json
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "motley/models/causal_lm.h"
#include "motley/text/tokenizer.h"
#include "motley/train/adamw.h"

namespace motley {

// What a run must know to go on, beside tensors.
struct TrainerState {
  int64_t step = 0;  // done
  int64_t tokens = 0;
  double seconds = 0;  // of training, over all restarts
  int64_t threads = 0;
  std::optional<int64_t> best_step;  // of the checkpoints that are kept
  double best_loss = 0;
  std::optional<double> validation_loss;  // of these weights, where it was measured
  std::optional<double> final_loss;       // over the whole validation text, at the last measurement
  nlohmann::json last_window;             // MetricsWindow::metrics() of the last line, or null
  bool settled = true;                    // the line, evaluation and sample due after `step` are done
  bool ended = false;                     // the run's last evaluation and sample are done
  int64_t metrics_bytes = 0;              // length of metrics.jsonl at this point
  nlohmann::json window;                  // MetricsWindow::state()
  nlohmann::json data;                    // {"tokens", "crc32"} of the text it learns from
  nlohmann::json configuration;           // to_json(RunConfig)
};

// Written beside `folder`, synced, then renamed; a process that dies meanwhile leaves the old state.
// Every failure is a UserError with the path and the reason.
void write_checkpoint(const std::filesystem::path& folder, CausalLm& model, const Tokenizer& tokenizer,
                      const AdamW& optimizer, const TrainerState& state);

// Renews trainer.json alone, in one step: what else the run did since the checkpoint of these very weights.
void write_trainer_state(const std::filesystem::path& folder, const TrainerState& state);

// trainer.json, after a check of every file's size and CRC-32 against it. Throws UserError naming the file
// that is missing, truncated, changed or of another program.
TrainerState read_trainer_state(const std::filesystem::path& folder);

}  // namespace motley
