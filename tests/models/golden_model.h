// The published MoE++ model of tests/golden and what its authors' code computed with it.
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "motley/base/concat.h"
#include "motley/base/config_values.h"
#include "motley/io/safetensors.h"

namespace motley {

struct GoldenModel {
  std::filesystem::path folder = std::filesystem::path(MOTLEY_TESTS_DIR) / "golden" / "moe_plus_plus";
  std::vector<std::vector<int64_t>> prompts, greedy;
  std::vector<at::Tensor> logits;  // [L, V] fp32 each

  GoldenModel() {
    const SafetensorsFile expected(folder / "expected.safetensors");
    for (const auto& one : read_json_file((folder / "cases.json").string())) {
      logits.push_back(expected.tensor(concat("logits_", prompts.size())));
      prompts.push_back(one.at("prompt").get<std::vector<int64_t>>());
      greedy.push_back(one.at("greedy").get<std::vector<int64_t>>());
    }
  }

  // The largest difference over the largest expected logit of prompt i.
  double error(size_t i, const at::Tensor& found) const {
    return ((found.to(at::kFloat) - logits[i]).abs().max() / logits[i].abs().max()).item<double>();
  }
};

}  // namespace motley
