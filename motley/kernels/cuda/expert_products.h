// The grouped products of an expert layer on a GPU, in families of kernels that give the same results:
// sm90 (Hopper: wgmma and TMA) and sm80 (mma, every card from Ampere on). Rows are those of a routing
// plan; nothing is written for experts that have no place. Widths are divisible by 8, pointers 16-byte
// aligned, strides in elements and divisible by 8. Free of torch; nothing synchronises with the host.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "motley/kernels/cuda/activation.h"
#include "motley/kernels/cuda/routing_plan.h"

namespace motley::cuda {

enum class Family { kSm80, kSm90 };
enum class DataType { kBf16, kFp16, kFp32 };  // of rows, weights and biases; sums are fp32
constexpr int element_bytes(DataType type) { return type == DataType::kFp32 ? 4 : 2; }

struct ExpertShape {
  int num_tokens, top_k, num_experts, num_places;
  int model_width;   // D
  int expert_width;  // F
  int max_rows;      // of every array by row
  DataType type = DataType::kBf16;
};

struct ExpertPlan {
  const int* row_assignment;   // [max_rows]
  const int* expert_offset;    // [E + 1]
  const int* place_of_expert;  // [E], or null where expert e is at place e
  TileSchedule schedule;
};

struct PlacedWeights {
  const void* data;
  long stride;  // between places
};
struct PlacedBias {
  const void* data = nullptr;  // null: none
  long stride = 0;             // between places
};

// x W_gate_up^T + bias, then the activation. G = 2F (gate rows, then up rows) where the activation is
// gated, else F.
struct UpProduct {
  const void* x;  // by token [T, D], or by row [max_rows, D]
  long x_stride;
  bool by_token;
  PlacedWeights gate_up;  // [P, G, D]
  PlacedBias bias;        // [P, G]
  Activation activation;
  void* hidden;     // [max_rows, G], before the activation, with the bias; null: not kept
  void* activated;  // [max_rows, F]
};

// Backward through down projection and activation. With dA' = dy W_down and w the row's gate
// weight: dhidden is the gradient of hidden for w dA', weighted is w A, with A recomputed from hidden,
// gate_parts[i] the sum of dA' A over the columns [256 i, 256 i + 256).
struct HiddenGradient {
  const void* dy;  // by token [T, D], or by row [max_rows, D]
  long dy_stride;
  bool by_token;
  PlacedWeights down;  // [P, D, F]
  Activation activation;
  const void* hidden;         // [max_rows, G]
  const float* gate_weights;  // [T * K]
  void* dhidden;              // [max_rows, G]
  void* weighted;             // [max_rows, F]
  float* gate_parts;          // [num_gate_parts(F), max_rows]
};
constexpr int kGatePartColumns = 256;
constexpr int num_gate_parts(int expert_width) {
  return (expert_width + kGatePartColumns - 1) / kGatePartColumns;
}

// out[row] = x[row's token, or row] W^T + bias with weights [P, width, depth], or x W with [P, depth, width].
struct RowsProduct {
  const void* x;
  long x_stride;
  bool by_token;
  PlacedWeights weight;
  bool transposed;  // [P, width, depth]
  PlacedBias bias;  // [P, width]
  int depth, width;
  void* out;  // [max_rows, width]
};

struct Gradient {
  void* data = nullptr;     // null: not wanted
  long stride = 0;          // between places
  bool fp32 = false;        // else the type of the rows
  bool accumulate = false;  // added to what is there, in fp32, rounded once
};

// out[place] = by_row^T gathered over the rows of each expert, zeros for an expert without rows.
struct OuterProduct {
  const void* by_row;  // [max_rows, row_width], contiguous
  int row_width;
  const void* gathered;  // by token [T, gathered_width], or by row [max_rows, gathered_width]
  long gathered_stride;
  bool by_token;
  int gathered_width;
  bool gathered_first;  // out is [P, gathered_width, row_width], not [P, row_width, gathered_width]
  Gradient out;
  int* scratch = nullptr;  // outer_scratch_size; null: experts by number, however many rows they have
};
size_t outer_scratch_size(const ExpertShape& shape, int row_width, int gathered_width);
// Whether a product that reads rows by token is better off with a copy of them in the plan's order, the copy
// included: a weight gradient beside rows of this width, or that of `down` and expert_dhidden, which share
// one.
constexpr bool wants_copy(Family family, int row_width) {
  return family == Family::kSm90 && row_width >= 640;
}
constexpr bool wants_shared_copy(Family family, int expert_width) {
  return family == Family::kSm90 && expert_width >= 512;
}
// The same of expert_up in expert_layer_forward, which gains less: a tenth to a sixth of its time, where the
// copy takes 100 / F of it.
constexpr bool wants_up_copy(Family family, int expert_width) {
  return family == Family::kSm90 && expert_width >= 1024;
}

// How a product is cut, a pure function of its shape, so that it can be printed.
enum class Product { kUp, kDown, kDhidden, kDx, kDdown, kDgateUp, kDhiddenAndDdown };
enum class RowsCome { kInOrder, kGathered, kCopied };  // gathered while they are loaded, or copied before
struct ProductTiles {
  int rows, columns, depth;  // of the output of `blocks` thread blocks, and of a step along K
  int blocks;                // of a cluster, which share the columns' operand
  int stages;                // steps in shared memory
  RowsCome rows_come;
};
// shared_bytes: what a block may have (cudaDevAttrMaxSharedMemoryPerBlockOptin).
ProductTiles product_tiles(Family family, const ExpertShape& shape, const Activation& activation,
                           Product product, int shared_bytes);
std::string describe(const ProductTiles& tiles);

// The family that is meant for the current device and the type; another one may be forced: kSm80 runs on
// every card, kSm90 in bf16 on compute capability 9.0.
Family default_family(DataType type);
const char* family_name(Family family);

void expert_up(Family family, const ExpertShape& shape, const ExpertPlan& plan, const UpProduct& product,
               cudaStream_t stream);
void expert_dhidden(Family family, const ExpertShape& shape, const ExpertPlan& plan,
                    const HiddenGradient& product, cudaStream_t stream);
void expert_matmul(Family family, const ExpertShape& shape, const ExpertPlan& plan,
                   const RowsProduct& product, cudaStream_t stream);
void expert_outer(Family family, const ExpertShape& shape, const ExpertPlan& plan,
                  const OuterProduct& product, cudaStream_t stream);

// What each family implements; the calls above choose between them.
#define MOTLEY_EXPERT_PRODUCTS                                                                         \
  void expert_up(const ExpertShape& shape, const ExpertPlan& plan, const UpProduct& product,           \
                 cudaStream_t stream);                                                                 \
  void expert_dhidden(const ExpertShape& shape, const ExpertPlan& plan, const HiddenGradient& product, \
                      cudaStream_t stream);                                                            \
  void expert_matmul(const ExpertShape& shape, const ExpertPlan& plan, const RowsProduct& product,     \
                     cudaStream_t stream);                                                             \
  void expert_outer(const ExpertShape& shape, const ExpertPlan& plan, const OuterProduct& product,     \
                    cudaStream_t stream);
namespace sm80 {
MOTLEY_EXPERT_PRODUCTS
}
namespace sm90 {
MOTLEY_EXPERT_PRODUCTS
}
#undef MOTLEY_EXPERT_PRODUCTS

}  // namespace motley::cuda
