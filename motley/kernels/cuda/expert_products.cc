#include "motley/kernels/cuda/expert_products.h"

#include <stdexcept>
#include <string>

#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/sm80/gemm_params.h"
#include "motley/kernels/cuda/sm90/deal_tiles.h"
#include "motley/kernels/cuda/sm90/gemm_params.h"

namespace motley::cuda {
namespace {

template <class Product>
void call(Family family, void (*sm80)(const ExpertShape&, const ExpertPlan&, const Product&, cudaStream_t),
          void (*sm90)(const ExpertShape&, const ExpertPlan&, const Product&, cudaStream_t),
          const ExpertShape& shape, const ExpertPlan& plan, const Product& product, cudaStream_t stream) {
  if (shape.max_rows == 0) return;
  if (family == Family::kSm90 && shape.type != DataType::kBf16)
    throw std::invalid_argument(
        "[cuda] the Hopper kernels compute in bf16: expected family sm80 for fp16 and fp32");
  (family == Family::kSm90 ? sm90 : sm80)(shape, plan, product, stream);
}

RowsCome how_rows_come(Family family, Product product, int expert_width, int hidden_width) {
  bool copied = false;
  switch (product) {
    case Product::kDown:
    case Product::kDx:
      return RowsCome::kInOrder;
    case Product::kUp:
      copied = wants_up_copy(family, expert_width);
      break;
    case Product::kDhidden:
      break;
    case Product::kDdown:
      copied = wants_copy(family, expert_width);
      break;
    case Product::kDgateUp:
      copied = wants_copy(family, hidden_width);
      break;
    case Product::kDhiddenAndDdown:
      copied = wants_shared_copy(family, expert_width);
      break;
  }
  return copied ? RowsCome::kCopied : RowsCome::kGathered;
}

}  // namespace

Family default_family(DataType type) {
  int device = 0, major = 0;
  MOTLEY_CUDA_CHECK(cudaGetDevice(&device));
  MOTLEY_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major == 9 && type == DataType::kBf16 ? Family::kSm90 : Family::kSm80;
}

const char* family_name(Family family) { return family == Family::kSm90 ? "sm90" : "sm80"; }

ProductTiles product_tiles(Family family, const ExpertShape& shape, const Activation& activation,
                           Product product, int shared_bytes) {
  const RowsCome rows_come =
      how_rows_come(family, product, shape.expert_width, activation.hidden_width(shape.expert_width));
  if (family == Family::kSm90)
    return {2 * sm90::kClusterBlocks * sm90::kBlockRows,
            sm90::kTileN,
            sm90::kTileK,
            sm90::kClusterBlocks,
            sm90::kStages,
            rows_come};
  return {sm80::kTileM,
          sm80::kTileN,
          sm80::kLineBytes / element_bytes(shape.type),
          1,
          sm80::num_stages(shared_bytes, shape.num_experts),
          rows_come};
}

std::string describe(const ProductTiles& tiles) {
  const char* rows_come = tiles.rows_come == RowsCome::kInOrder    ? "in order"
                          : tiles.rows_come == RowsCome::kGathered ? "gathered"
                                                                   : "copied";
  return std::to_string(tiles.rows) + " x " + std::to_string(tiles.columns) + " x " +
         std::to_string(tiles.depth) + " by " + std::to_string(tiles.blocks) + ", " +
         std::to_string(tiles.stages) + " stages, rows " + rows_come;
}

void expert_up(Family family, const ExpertShape& shape, const ExpertPlan& plan, const UpProduct& product,
               cudaStream_t stream) {
  call(family, sm80::expert_up, sm90::expert_up, shape, plan, product, stream);
}

void expert_dhidden(Family family, const ExpertShape& shape, const ExpertPlan& plan,
                    const HiddenGradient& product, cudaStream_t stream) {
  call(family, sm80::expert_dhidden, sm90::expert_dhidden, shape, plan, product, stream);
}

void expert_matmul(Family family, const ExpertShape& shape, const ExpertPlan& plan,
                   const RowsProduct& product, cudaStream_t stream) {
  call(family, sm80::expert_matmul, sm90::expert_matmul, shape, plan, product, stream);
}

size_t outer_scratch_size(const ExpertShape& shape, int row_width, int gathered_width) {
  const auto tiles = [](int width) { return size_t(width + sm90::kTileN - 1) / sm90::kTileN; };
  return sm90::kDealtHeader + sm90::kMostClusters +
         shape.num_experts * tiles(row_width) * tiles(gathered_width);
}

void expert_outer(Family family, const ExpertShape& shape, const ExpertPlan& plan,
                  const OuterProduct& product, cudaStream_t stream) {
  const Gradient& out = product.out;
  if (shape.max_rows == 0) {
    const size_t element = out.fp32 ? 4 : element_bytes(shape.type);
    if (!out.accumulate)
      MOTLEY_CUDA_CHECK(cudaMemset2DAsync(out.data, element * out.stride, 0,
                                          element * product.row_width * product.gathered_width,
                                          shape.num_places, stream));
    return;
  }
  call(family, sm80::expert_outer, sm90::expert_outer, shape, plan, product, stream);
}

}  // namespace motley::cuda
