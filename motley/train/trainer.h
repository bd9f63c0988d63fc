// One optimizer step after the other: forward, backward, clipping, AdamW, gates.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "motley/infer/packed_windows.h"
#include "motley/models/causal_lm.h"
#include "motley/text/token_store.h"
#include "motley/train/adamw.h"
#include "motley/train/data_order.h"
#include "motley/train/metrics_window.h"
#include "motley/train/run_config.h"

namespace motley {

// Everything a step does is a function of the model, the optimizer and the step's number.
class Trainer {
 public:
  // model and tokens must outlive the trainer. Throws UserError when the training part holds no sequence
  // or the sequences are longer than the model's positions.
  Trainer(CausalLm& model, const RunConfig& config, const TokenStore& tokens, const TokenSplit& split);

  // Step `step`, counted from 0, and its figures into `window`. interrupted() is asked before each forward
  // pass; when it answers true nothing is changed and step() returns false. Throws DivergedError, before
  // anything is changed, when the loss or the gradient is not finite.
  bool step(int64_t step, MetricsWindow& window, const std::function<bool()>& interrupted);

  AdamW& optimizer() { return optimizer_; }
  int64_t tokens_per_step() const;

 private:
  struct Pass;
  Pass forward_backward(int64_t step, int64_t pass);
  std::vector<TokenWindow> windows(int64_t step, int64_t pass) const;
  [[noreturn]] void fail(int64_t step, int64_t pass, const std::string& what, double value,
                         const std::vector<at::Tensor>& gradients);
  ForwardOptions forward_options(int64_t step, int64_t pass) const;

  CausalLm& model_;
  TrainOptions options_;
  int64_t sequence_length_;
  const TokenStore& tokens_;
  TokenSplit split_;
  DataOrder order_;
  AdamW optimizer_;
};

}  // namespace motley
