// Choice of the best slots of every token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace motley {

// Indices [T, K] int64 of the K largest of each row of scores [T, S] fp32, largest first. Equal scores: the
// lower slot first, which at::topk does not promise. NaN is never larger, so that the result is valid
// (K distinct slots) even then. Not differentiable.
at::Tensor select_top_k(const at::Tensor& scores, int64_t k);

}  // namespace motley
