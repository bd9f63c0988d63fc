// Who computes which tiles of a product whose tiles cost as much as their expert has rows.
#pragma once

#include <cuda_runtime_api.h>

#include "motley/kernels/cuda/expert_products.h"

namespace motley::cuda::sm90 {

constexpr int kMostClusters = 128;
// dealt: kDealtHeader ints, of which the first says whether tiles are dealt at all: where experts have about
// as many rows each, tile t is left to cluster t % clusters. Then the first tile of each cluster, and the one
// after each tile; -1: none.
constexpr int kDealtHeader = 1;

// Deals the tiles of the experts that are here, tile t being number t % tiles_per_expert of expert
// t / tiles_per_expert: those of the experts with the most rows first, each to whoever has the least to do.
// dealt [kDealtHeader + clusters + E tiles_per_expert].
void deal_tiles(const ExpertPlan& plan, int num_experts, int tiles_per_expert, int clusters, int* dealt,
                cudaStream_t stream);

}  // namespace motley::cuda::sm90
