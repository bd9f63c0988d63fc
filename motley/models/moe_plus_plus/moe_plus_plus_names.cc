#include "motley/models/moe_plus_plus/moe_plus_plus_names.h"

#include <array>
#include <string_view>

#include "motley/base/concat.h"

namespace motley {
namespace {

struct Renamed {
  std::string_view ours;  // behind "model.layers.L.mlp."
  std::string_view published;
  bool stacked;   // the published name is of one expert; ours holds all of them
  bool constant;  // stacked: of the constant experts, which follow those with a feed-forward network
};

constexpr std::array kRenamed = {
    Renamed{"gate.weight", "moe.gate.wg.weight", false, false},
    Renamed{"gate.residual.weight", "moe.gate.gate_map.weight", false, false},
    Renamed{"experts.gate_up_proj", "up_proj.weight", true, false},
    Renamed{"experts.down_proj", "down_proj.weight", true, false},
    Renamed{"zero_experts.constant", "constant", true, true},
    Renamed{"zero_experts.constant_gate", "wg.weight", true, true},
};

NamedTensors published_tensors(const CausalLm& model, const std::string& name, const at::Tensor& tensor) {
  constexpr std::string_view kBlock = ".mlp.";
  const size_t at = name.find(kBlock);
  if (at == std::string::npos) return {{name, tensor}};
  const std::string prefix = name.substr(0, at + kBlock.size());
  const std::string_view ours = std::string_view(name).substr(prefix.size());
  for (const Renamed& renamed : kRenamed) {
    if (renamed.ours != ours) continue;
    if (!renamed.stacked) return {{concat(prefix, renamed.published), tensor}};
    const int64_t first = renamed.constant ? model.num_experts().front() : 0;
    NamedTensors published;
    for (int64_t i = 0; i < tensor.size(0); ++i) {
      published.emplace_back(concat(prefix, "moe.experts.experts.", first + i, ".", renamed.published),
                             tensor.select(0, i));
    }
    return published;
  }
  return {{name, tensor}};
}

}  // namespace

void read_moe_plus_plus(CheckpointReader& reader, const CausalLm& model, const std::string& name,
                        at::Tensor& tensor) {
  for (const auto& [published, part] : published_tensors(model, name, tensor))
    reader.copy_into(published, part);
}

NamedTensors publish_moe_plus_plus(const CausalLm& model, const std::string& name, const at::Tensor& tensor) {
  return published_tensors(model, name, tensor);
}

}  // namespace motley
