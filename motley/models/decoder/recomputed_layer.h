// A transformer block that keeps its input alone for backward and runs again there (activation
// checkpointing, arXiv 1604.06174): a third more computation for a small part of the memory.
#pragma once

#include "motley/models/decoder/decoder_layer.h"

namespace motley {

// As layer.forward(state), with the same values and gradients. The layer must outlive the graph.
void forward_recomputed(const DecoderLayer& layer, DecoderState& state);

}  // namespace motley
