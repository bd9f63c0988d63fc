// Weight gradients: out [M, J] = sum over rows r of a_r^T b_r, in blocks of M x J that are tasks.
#pragma once

#include "motley/kernels/cpu/multiply.h"

namespace motley::kernels {

constexpr int64_t kOuterRows = 264;   // most rows of out in a task
constexpr int64_t kOuterDepth = 512;  // rows that are packed at a time
// Most columns of out in a task: with one chunk of rows no sums are kept between chunks.
constexpr int64_t outer_columns(int64_t num_rows) { return num_rows <= kOuterDepth ? 2048 : 512; }

struct OuterBlock {
  RowSource a, b;       // same type
  int64_t first, last;  // the rows that are summed
  int64_t m, num_m;     // rows m .. m + num_m of out: columns of a
  int64_t j, num_j;     // columns of out: columns of b
  DType out_type;
  void* out;  // whole matrix
  int64_t out_stride;
  bool accumulate;  // add to what out holds
};

int64_t outer_scratch_bytes();

// Sums in ascending order of rows; out is rounded once, at the end. No rows give zeros.
void outer_block(const CpuKernels& kernels, const OuterBlock& block, void* scratch);

}  // namespace motley::kernels
