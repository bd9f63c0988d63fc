// Who computes which tiles of a product whose tiles cost as much as their expert has rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "motley/kernels/cuda/expert_products.h"

namespace motley::cuda::sm90 {

constexpr int kMostClusters = 128;

// Deals the tiles of the experts that are here, tile t being number t % tiles_per_expert of expert
// t / tiles_per_expert: those of the experts with the most rows first, each to whoever has the least to do.
// dealt [clusters + E tiles_per_expert]: the first tile of each cluster, then the one after each tile; -1:
// none.
void deal_tiles(const ExpertPlan& plan, int num_experts, int tiles_per_expert, int clusters, int* dealt,
                cudaStream_t stream);

}  // namespace motley::cuda::sm90
