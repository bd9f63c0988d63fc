// What happened since the last line of metrics.jsonl: losses, expert load, time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "motley/ops/routing.h"

namespace motley {

// Sums over steps; saved in checkpoints, so that a run that goes on writes the line it would have written.
class MetricsWindow {
 public:
  // num_experts: E of each MoE layer.
  explicit MetricsWindow(std::vector<int64_t> num_experts) : num_experts_(std::move(num_experts)) {}

  // One forward pass of `tokens` tokens. loss: mean cross entropy. layers: the index of each routing's layer.
  void add_pass(double loss, const std::vector<Routing>& routings, const std::vector<int64_t>& layers,
                int64_t tokens);
  void add_step(double gradient_norm, double seconds);
  void clear();

  int64_t steps() const { return steps_; }
  double mean_loss() const { return loss_ / static_cast<double>(passes_); }
  double tokens_per_second() const { return seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0; }
  // Over all MoE layers: FFN experts that a token used, and the fullest expert's load over the mean.
  double ffn_experts_per_token() const;
  double worst_balance() const;

  // The fields of a "train" line: loss, losses, grad_norm, tokens_per_second, and for each MoE layer its
  // index, load (assignments a token that each slot kept), ffn_experts_per_token and dropped (assignments a
  // token).
  nlohmann::json metrics() const;

  nlohmann::json state() const;
  void load(const nlohmann::json& state);

 private:
  std::vector<int64_t> num_experts_, layers_;
  int64_t steps_ = 0, passes_ = 0, tokens_ = 0;
  double loss_ = 0, gradient_norm_ = 0, seconds_ = 0;
  std::map<std::string, double> losses_;   // summed over layers, as added to the loss
  std::vector<std::vector<double>> load_;  // [layers][S] assignments
  std::vector<double> dropped_;            // [layers]
};

}  // namespace motley
