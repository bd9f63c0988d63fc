// How much memory a training step takes at least, known before its model is made.
#pragma once

#include "motley/models/model_size.h"
#include "motley/train/run_config.h"

namespace motley {

// Bytes that backward finds of one forward pass, whatever the layers are: less than a step takes. A double,
// which no size makes overflow.
double least_step_bytes(const RunConfig& config, const ModelSize& model);

// Throws UserError naming train.batch_size where that is more than the machine's memory.
void require_step_memory(const RunConfig& config, const ModelSize& model);

}  // namespace motley
