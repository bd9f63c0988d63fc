// Descriptors of the bulk tensor copies.
#pragma once

#include <cuda.h>

namespace motley::cuda::sm90 {

// A bf16 array [planes, rows, columns] read in boxes of box_rows x 64 columns, in the 128-byte swizzle;
// what lies outside reads as zeros. Strides in elements, divisible by 8; the base 16-byte aligned.
CUtensorMap make_tensor_map(const void* base, long columns, long rows, long planes, long row_stride,
                            long plane_stride, int box_rows);

// The same in five dimensions, innermost first; strides (in elements) of all but the first.
CUtensorMap make_tensor_map(const void* base, const long (&sizes)[5], const long (&strides)[4],
                            const int (&box)[5]);

// The same in three dimensions, in the order of memory instead of the swizzle; rows of the box of up to 256.
CUtensorMap make_straight_map(const void* base, const long (&sizes)[3], const long (&strides)[2],
                              const int (&box)[3]);

}  // namespace motley::cuda::sm90
