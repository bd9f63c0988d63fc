// The routing plan on the device: a stable counting sort of the assignments t*K + k by expert, without
// host synchronisation. Integers only; two runs give the same bits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "motley/kernels/cuda/row_tile.h"

namespace motley::cuda {

constexpr int kMaxExperts = 1024;

struct RoutingPlanBuffers {
  int* row_assignment;  // [T*K]: the assignment of each row; -1 past the last row
  int* expert_offset;   // [E + 1]
  int* token_rows;      // [T*K]: the row of each assignment, -1 without one
};

// The tiles of the rows of experts that are here, in expert order.
struct TileSchedule {
  RowTile* tiles;  // [max_row_tiles(T*K, E)]
  int* num_tiles;  // [1]
};

size_t routing_plan_workspace_bytes(int num_assignments, int num_experts);

// slots [num_assignments]; a slot outside [0, num_experts) gets no row. num_experts <= kMaxExperts.
// Writes the plan and the schedule of experts that are all resident (place = expert).
void routing_plan(const int* slots, int num_assignments, int num_experts, const RoutingPlanBuffers& plan,
                  const TileSchedule& schedule, void* workspace, cudaStream_t stream);

// The schedule alone, for a plan that exists and experts at given places (-1: not here, no tiles);
// place_of_expert [num_experts], or null where expert e is at place e.
void tile_schedule(const int* expert_offset, int num_experts, const int* place_of_expert,
                   const TileSchedule& schedule, cudaStream_t stream);

}  // namespace motley::cuda
