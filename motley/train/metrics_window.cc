#include "motley/train/metrics_window.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

namespace motley {
namespace {

double ffn_load(const std::vector<double>& load, int64_t num_experts) {
  return std::accumulate(load.begin(), load.begin() + num_experts, 0.0);
}

// Losses, load and dropped assignments of each layer in one tensor on the CPU: one wait for a GPU.
at::Tensor figures_of(const std::vector<Routing>& routings) {
  std::vector<at::Tensor> parts;
  const auto add = [&](const at::Tensor& tensor) {
    parts.push_back(tensor.detach().to(at::kDouble).flatten());
  };
  for (const Routing& routing : routings) {
    for (const auto& auxiliary : routing.losses) add(auxiliary.value);
    add(routing.load);
    if (routing.dropped.defined()) add(routing.dropped);
  }
  return parts.empty() ? at::empty({0}, at::kDouble) : at::cat(parts).cpu();
}

}  // namespace

void MetricsWindow::add_pass(double loss, const std::vector<Routing>& routings,
                             const std::vector<int64_t>& layers, int64_t tokens) {
  const at::Tensor figures = figures_of(routings);
  const double* value = figures.const_data_ptr<double>();
  layers_ = layers;
  ++passes_;
  tokens_ += tokens;
  loss_ += loss;
  load_.resize(routings.size());
  dropped_.resize(routings.size());
  for (size_t layer = 0; layer < routings.size(); ++layer) {
    const Routing& routing = routings[layer];
    for (const auto& auxiliary : routing.losses) losses_[auxiliary.name] += *value++;
    load_[layer].resize(routing.load.numel());
    for (double& load : load_[layer]) load += *value++;
    if (routing.dropped.defined()) dropped_[layer] += *value++;
  }
}

void MetricsWindow::add_step(double gradient_norm, double seconds) {
  ++steps_;
  gradient_norm_ += gradient_norm;
  seconds_ += seconds;
}

void MetricsWindow::clear() { *this = MetricsWindow(std::move(num_experts_)); }

double MetricsWindow::ffn_experts_per_token() const {
  if (load_.empty() || tokens_ == 0) return 0;
  double sum = 0;
  for (size_t layer = 0; layer < load_.size(); ++layer) sum += ffn_load(load_[layer], num_experts_[layer]);
  return sum / static_cast<double>(tokens_) / static_cast<double>(load_.size());
}

double MetricsWindow::worst_balance() const {
  double worst = 0;
  for (size_t layer = 0; layer < load_.size(); ++layer) {
    const int64_t experts = num_experts_[layer];
    const double sum = ffn_load(load_[layer], experts);
    if (sum == 0) continue;
    const double most = *std::max_element(load_[layer].begin(), load_[layer].begin() + experts);
    worst = std::max(worst, most * static_cast<double>(experts) / sum);
  }
  return worst;
}

nlohmann::json MetricsWindow::metrics() const {
  nlohmann::json losses = nlohmann::json::object();
  for (const auto& [name, sum] : losses_) losses[name] = sum / static_cast<double>(passes_);
  nlohmann::json loads = nlohmann::json::array(), ffn = nlohmann::json::array(),
                 dropped = nlohmann::json::array();
  const auto tokens = static_cast<double>(tokens_);
  for (size_t layer = 0; layer < load_.size(); ++layer) {
    std::vector<double> share = load_[layer];
    for (double& value : share) value /= tokens;
    ffn.push_back(ffn_load(share, num_experts_[layer]));
    loads.push_back(std::move(share));
    dropped.push_back(dropped_[layer] / tokens);
  }
  return {{"loss", mean_loss()},
          {"losses", losses},
          {"grad_norm", gradient_norm_ / static_cast<double>(steps_)},
          {"tokens_per_second", tokens_per_second()},
          {"layers", layers_},
          {"load", loads},
          {"ffn_experts_per_token", ffn},
          {"dropped", dropped}};
}

nlohmann::json MetricsWindow::state() const {
  return {{"steps", steps_},     {"passes", passes_}, {"tokens", tokens_},
          {"loss", loss_},       {"losses", losses_}, {"gradient_norm", gradient_norm_},
          {"seconds", seconds_}, {"load", load_},     {"dropped", dropped_},
          {"layers", layers_}};
}

void MetricsWindow::load(const nlohmann::json& state) {
  state.at("steps").get_to(steps_);
  state.at("passes").get_to(passes_);
  state.at("tokens").get_to(tokens_);
  state.at("loss").get_to(loss_);
  state.at("losses").get_to(losses_);
  state.at("gradient_norm").get_to(gradient_norm_);
  state.at("seconds").get_to(seconds_);
  state.at("load").get_to(load_);
  state.at("dropped").get_to(dropped_);
  state.at("layers").get_to(layers_);
}

}  // namespace motley
