// Published tensor names of MoE++ and the model's own.
#pragma once

#include <string>

#include "motley/io/safetensors.h"
#include "motley/models/causal_lm.h"
#include "motley/models/checkpoint_reader.h"

namespace motley {

// Published per expert, stacked in the model: experts 0 .. E - 1 have up_proj [2F, D] (gate rows first) and
// down_proj [D, F]; the constant ones after them have constant [D] and wg.weight [2, D].
void read_moe_plus_plus(CheckpointReader& reader, const CausalLm& model, const std::string& name,
                        at::Tensor& tensor);
NamedTensors publish_moe_plus_plus(const CausalLm& model, const std::string& name, const at::Tensor& tensor);

}  // namespace motley
