// model_type "MoE++": the published checkpoints of MoE++ (arXiv 2410.07348).
#pragma once

#include "motley/models/model_family.h"

namespace motley {

extern const ModelFamily kMoePlusPlusFamily;

}  // namespace motley
