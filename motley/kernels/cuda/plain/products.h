// The products of an expert layer in their plainest form: any sizes, alignments and element types, fp32
// sums in a fixed order. They take what the fast kernels refuse, and are what those are tested against.
#pragma once

#include <cuda_runtime_api.h>

#include "motley/kernels/cuda/element.h"
#include "motley/kernels/cuda/routing_plan.h"

namespace motley::cuda::plain {

// Rows of a plan: row r is data row row_assignment[r] / top_k (by token), or r itself where it is null.
struct Rows {
  const void* data;
  Element element;
  long stride;  // between rows, in elements
  const int* row_assignment;
  int top_k;
};

// Weights [places][depth][columns] at any strides, in elements, of the rows' element type.
struct Weights {
  const void* data;
  long place_stride, depth_stride, column_stride;
  const void* bias;  // [places, columns], or null
};

struct Output {
  void* data;
  Element element;
};

// out[r, n] = sum over k of rows[r, k] W[place][k][n] + bias[place][n] for the rows in the schedule.
void multiply(const Rows& rows, int depth, const Weights& weights, int columns, const TileSchedule& schedule,
              int max_tiles, const Output& out, cudaStream_t stream);

// Which experts' rows go to which place of an output by place.
struct Places {
  const int* expert_offset;    // [E + 1]
  const int* place_of_expert;  // [E], or null where expert e is at place e
  int num_experts;
};

// out[place][m][n] (+)= sum over an expert's rows of a[r, m] b[r, n]; experts that are not here change
// nothing.
void outer(const Rows& a, int width_a, const Rows& b, int width_b, const Places& places, const Output& out,
           bool accumulate, cudaStream_t stream);

// out[place][n] (+)= sum over an expert's rows of weight a[r, n]; the weight of row r is
// gate_weights[row_assignment[r]], or 1 where gate_weights is null.
void column_sums(const Rows& a, int width, const float* gate_weights, const int* row_assignment,
                 const Places& places, const Output& out, bool accumulate, cudaStream_t stream);

}  // namespace motley::cuda::plain
