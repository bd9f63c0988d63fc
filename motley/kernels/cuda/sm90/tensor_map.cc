#include "motley/kernels/cuda/sm90/tensor_map.h"

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda::sm90 {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                            const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                            CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Asked of the runtime, so that nothing links to the driver's library.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  MOTLEY_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                     cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess)
    throw std::runtime_error("[cuda] the driver has no cuTensorMapEncodeTiled: expected CUDA 12.0 or newer");
  return reinterpret_cast<Encode>(function);
}

CUtensorMap make_map(int rank, const void* base, const long* sizes, const long* strides, const int* box,
                     CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B) {
  static const Encode encode = find_encode();
  CUtensorMap map;
  cuuint64_t all_sizes[5], bytes[5];
  cuuint32_t all_boxes[5], steps[5];
  for (int i = 0; i < rank; ++i) all_sizes[i] = sizes[i], all_boxes[i] = box[i], steps[i] = 1;
  for (int i = 0; i < rank - 1; ++i) bytes[i] = 2 * static_cast<cuuint64_t>(strides[i]);
  const CUresult result = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, const_cast<void*>(base),
                                 all_sizes, bytes, all_boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return map;
  std::string text;
  for (int i = rank - 1; i >= 0; --i)
    text += std::to_string(sizes[i]) + (i ? " (stride " + std::to_string(strides[i - 1]) + "), " : "");
  throw std::invalid_argument("[cuda] no tensor map for [" + text + "]: driver error " +
                              std::to_string(result) +
                              " (expected a 16-byte aligned base and strides divisible by 8)");
}

}  // namespace

CUtensorMap make_tensor_map(const void* base, long columns, long rows, long planes, long row_stride,
                            long plane_stride, int box_rows) {
  const long sizes[] = {columns, rows, planes}, strides[] = {row_stride, plane_stride};
  const int box[] = {64, box_rows, 1};
  return make_map(3, base, sizes, strides, box);
}

CUtensorMap make_tensor_map(const void* base, const long (&sizes)[5], const long (&strides)[4],
                            const int (&box)[5]) {
  return make_map(5, base, sizes, strides, box);
}

CUtensorMap make_straight_map(const void* base, const long (&sizes)[3], const long (&strides)[2],
                              const int (&box)[3]) {
  return make_map(3, base, sizes, strides, box, CU_TENSOR_MAP_SWIZZLE_NONE);
}

}  // namespace motley::cuda::sm90
