// Blocked products over panels, for every family. The order of additions of one element depends on the
// depth only: never on threads, on which task computes it, or on its neighbours.
#pragma once

#include "motley/kernels/cpu/table.h"

namespace motley::kernels {

// Rows of one matrix as products take them: by row, or by token where assignment names it (gather).
struct RowSource {
  const void* data;
  DType type;
  int64_t width;  // elements from one row to the next
  const int32_t* assignment = nullptr;
  int64_t top_k = 1;

  const void* row(int64_t r) const {
    return offset(data, type, (assignment ? assignment[r] / top_k : r) * width);
  }
};

// Panels are walked in chunks that stay in the second-level cache.
constexpr int64_t depth_block(DType panel_type) { return 4096 / size_of(panel_type); }

// What multiply_rows needs beside its operands: rows converted to the panel's type.
constexpr int64_t kMultiplyScratch = int64_t{kTileRows} * 4096;

// A block of columns of a matrix that will be packed soon, and is fetched a little at a time.
class Upcoming {
 public:
  Upcoming() = default;
  // Contiguous memory, as much of it as one product has rows; `products` of them share the fetching.
  Upcoming(const void* memory, int64_t bytes, int products) : Upcoming(memory, 64, (bytes + 63) / 64, 64) {
    products_ = products;
  }
  // `bytes` from `matrix` on in each of `num_rows` rows.
  Upcoming(const void* matrix, int64_t row_bytes, int64_t num_rows, int64_t bytes);
  // Points a tile of `num_rows` rows and `steps` steps at the next lines; how many at a time.
  int take(int num_rows, int64_t steps, const void** next, int64_t* next_step);

 private:
  const std::byte* at_ = nullptr;
  int64_t row_bytes_ = 0;
  int64_t rows_left_ = 0;
  int64_t lines_ = 1;  // of a row
  int products_ = 1;
};

// Where a product goes, rounded once, instead of into c: the first `count` lanes of row i to out[i].
struct RowOutput {
  void* const* out;
  DType type;
  int count;
};

// Lines that will be needed are on their way while a tile is computed. Always inlined: GCC takes a function
// that only prefetches for one without effect and drops its calls.
inline __attribute__((always_inline)) void fetch(const void* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const std::byte*>(from) + at);
}
inline __attribute__((always_inline)) void fetch_for_writing(void* const* rows, int num_rows, int64_t bytes) {
  for (int i = 0; i < num_rows; ++i) {
    for (int64_t at = 0; at < bytes; at += 64) {
      __builtin_prefetch(static_cast<const std::byte*>(rows[i]) + at, 1);
    }
  }
}

// c[i * lanes + lane] = sum over k of rows[i][k] * panel(k, lane), or added to what c holds.
// `type` is the rows'. Any number of rows; those past one cache's worth are better in blocks. Equally spaced
// if the family wants them so. upcoming, unless null, is fetched meanwhile as far as this product goes. With
// an output c is only scratch, or what the sums start from.
void multiply_rows(const CpuKernels& kernels, const Panel& panel, DType type, Rows rows, int64_t num_rows,
                   float* c, bool accumulate, void* scratch, Upcoming* upcoming = nullptr,
                   const RowOutput* output = nullptr);

// panel(k, lane) = matrix[k][first + lane], lane < count: a block of columns of a matrix as it lies.
void pack_matrix(const CpuKernels& kernels, DType type, const void* matrix, int64_t stride, int64_t first,
                 int count, const Panel& panel);

// Hands out pieces of a scratch buffer, each aligned to 64 bytes.
class Arena {
 public:
  explicit Arena(void* memory) : next_(static_cast<std::byte*>(memory)) {}
  void* take(int64_t bytes) {
    void* piece = next_;
    next_ += rounded(bytes);
    return piece;
  }
  float* take_floats(int64_t count) { return static_cast<float*>(take(count * 4)); }
  static constexpr int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  std::byte* next_;
};

}  // namespace motley::kernels
