// Auxiliary losses of routers, without their coefficients. Differentiable in scores and logits only.
#pragma once

#include <ATen/core/Tensor.h>

#include "motley/routing/gate_options.h"

namespace motley {

// assigned [S] int64: choices of each slot before drops; scores [T, S] fp32; token_mask [T] bool or
// undefined. Zero when no token counts. options.balance_loss must not be kNone.
at::Tensor balance_loss(const GateOptions& options, const at::Tensor& assigned, const at::Tensor& scores,
                        const at::Tensor& token_mask);

// mean over tokens of logsumexp(logits)^2 (ST-MoE, arXiv 2202.08906, Eq. 5).
at::Tensor router_z_loss(const at::Tensor& logits, const at::Tensor& token_mask);

// Wanted share of all assignments for each slot [S], from tau: the optimum of Eq. 7 of MoE++.
at::Tensor wanted_share(const GateOptions& options);

}  // namespace motley
