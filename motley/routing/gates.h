// Makes gates from options.
#pragma once

#include <memory>

#include "motley/routing/gate.h"
#include "motley/routing/gate_options.h"

namespace motley {

// A softmax gate in all its published forms. Parameters are zeros, to be initialised or loaded through
// visit(): weight [S, D] and, with a gating residual, residual.weight [S, S], both in dtype (fp32, bf16 or
// fp16; the logits are computed in fp32 all the same); with a selection bias the buffer
// e_score_correction_bias [S] fp32. Auxiliary losses ("balance", "z") are computed where GateInput::training
// is set. Throws UserError where check(options) does.
std::unique_ptr<Gate> make_gate(const GateOptions& options, at::ScalarType dtype = at::kFloat);

}  // namespace motley
