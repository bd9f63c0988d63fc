#include "motley/layers/moe_options.h"

#include <functional>

#include "motley/base/error.h"
#include "tests/layers/layer_support.h"

namespace motley {
namespace {

TEST(MoeOptions, ErrorsNameTheOption) {
  struct Case {
    const char* option;
    std::function<void(MoeLayerOptions&)> spoil;
  };
  const std::vector<Case> cases = {
      {"num_experts_per_tok", [](auto& o) { o.gate.num_experts_per_tok = 5; }},
      {"moe_intermediate_size", [](auto& o) { o.expert_width = 0; }},
      {"dtype", [](auto& o) { o.dtype = at::kDouble; }},
      {"shared_expert_intermediate_size", [](auto& o) { o.shared_expert_width = -1; }},
      {"shared_expert_gate", [](auto& o) { o.shared_expert_gate = true; }},
      {"hidden_act",
       [](auto& o) {
         o.shared_expert_width = 4;
         o.activation.kind = ActivationKind::kRelu;
       }},
      {"shared_expert_intermediate_size",
       [](auto& o) {
         o.shared_expert_width = 4;
         o.gating = MoeGating::kStatic;
       }},
      {"fp32_expert_gradients", [](auto& o) { o.fp32_expert_gradients = true; }},
      {"fp32_expert_gradients",
       [](auto& o) {
         o.fp32_expert_gradients = true;
         o.dtype = at::kBFloat16;
         o.gating = MoeGating::kStatic;
       }},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    MoeLayerOptions options = small_layer();
    cases[i].spoil(options);
    try {
      make_moe_layer(options);
      ADD_FAILURE() << "case " << i << " about " << cases[i].option << " was accepted";
    } catch (const UserError& error) {
      EXPECT_EQ(std::string(error.what()).rfind(cases[i].option, 0), 0u)
          << "case " << i << ": " << error.what();
    }
  }
}

TEST(MoeOptions, ParametersAreZerosOrSeededNormals) {
  MoeLayerOptions options = small_layer({ZeroExpertKind::kConstant});
  options.gate.hidden_size = 100;
  options.expert_width = 50;
  options.expert_bias = true;
  options.gate.gating_residual = true;
  options.gate.selection_bias = true;
  options.shared_expert_width = 40;
  for (const auto& [name, tensor] : tensors_of(*make_moe_layer(options))) {
    EXPECT_EQ(tensor.abs().sum().item<float>(), 0) << name;
    EXPECT_FALSE(tensor.requires_grad()) << name;
  }

  ParameterInit init = seeded(0.02, 9);
  init.output_std = 0.005;
  const auto first = make_moe_layer(options, init);
  init.generator = at::detail::createCPUGenerator(9);
  const auto second = make_moe_layer(options, init);
  const TensorMap again = tensors_of(*second);
  EXPECT_EQ(again.size(), 12u);
  for (const auto& [name, tensor] : tensors_of(*first)) {
    EXPECT_TRUE(tensor.equal(again.at(name))) << name;
    const double std = tensor.to(at::kDouble).std().item<double>();
    if (name.find("bias") != std::string::npos) {
      EXPECT_EQ(std, 0) << name;
    } else if (tensor.numel() >= 1000) {
      EXPECT_NEAR(std, name.find("down_proj") != std::string::npos ? 0.005 : 0.02, std * 0.1) << name;
    }
  }
}

}  // namespace
}  // namespace motley
