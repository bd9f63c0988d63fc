// Fetches K steps of A and B by cp.async, some steps ahead of the products and across the ends of tiles.
//
// In shared memory a K-major operand has lines of 64 bytes along K, the other kind one line of all its
// columns per k. 16-byte chunks are exchanged within lines so that ldmatrix meets no bank twice: chunk c
// of line r lies at c ^ (r / 2 % 4), and at c ^ (r % 8).
#pragma once

#include <cstdint>

#include "motley/kernels/cuda/sm80/work.cuh"

namespace motley::cuda::sm80 {

constexpr int kChunkBytes = 16;
template <class T>
constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));  // elements

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Zeros where not valid; `from` must then still be a valid pointer.
__device__ inline void copy_chunk(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? kChunkBytes : 0)
               : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// All but the last `stages - 2` groups have arrived.
__device__ inline void wait_for_copies(int stages) {
  if (stages == 3)
    asm volatile("cp.async.wait_group 1;" ::: "memory");
  else
    asm volatile("cp.async.wait_group 2;" ::: "memory");
}

__device__ inline int token_of(const PlanParams& p, bool gathered, int index) {
  return gathered ? static_cast<int>(p.top_k.divide(index)) : index;
}

// Where chunks of a K-major operand go: a thread has one chunk of every 64th line.
struct LinePlace {
  int line, chunk;
  uint32_t offset;
  __device__ LinePlace()
      : line(threadIdx.x / 4),
        chunk(threadIdx.x % 4),
        offset(line * kLineBytes + (chunk ^ (line / 2 % 4)) * 16) {}
};

// The same for an operand with `columns` contiguous along M or N: one chunk of every kLineStep-th line.
template <class T, int columns>
struct ColumnPlace {
  static constexpr int kChunks = columns * static_cast<int>(sizeof(T)) / kChunkBytes;
  static constexpr int kLineStep = kThreads / kChunks;
  static constexpr int kCount = kTileK<T> / kLineStep;
  int line, chunk;
  __device__ ColumnPlace() : line(threadIdx.x / kChunks), chunk(threadIdx.x % kChunks) {}
  __device__ uint32_t offset(int i) const {
    const int at = line + i * kLineStep;
    return at * kChunks * kChunkBytes + (chunk ^ (at % 8)) * kChunkBytes;
  }
};

// Op gives T, kMajorK (whether B's lines run along K) and b_line(p, n_tile, i, line): the line of B that
// belongs at place i * 64 + line of a K-major tile, or -1.
template <class Op>
class RowsLoader {
 public:
  using T = typename Op::T;
  __device__ RowsLoader(const typename Op::Params& p, const WorkTable& table)
      : p_(p), table_(table), index_(blockIdx.x) {
    look_ahead();
    start();
  }

  __device__ void issue(uint32_t stage) {
    if (!work_.valid) return;
    const int k = k_ + place_.chunk * kChunk<T>;
#pragma unroll
    for (int i = 0; i < kTileM / 64; ++i) {
      const bool valid = a_line_[i] && k < p_.a.width;
      copy_chunk(stage + place_.offset + i * 64 * kLineBytes, valid ? a_line_[i] + k : p_.a.data, valid);
    }
    issue_b(stage + kStageABytes);
    k_ += kTileK<T>;
    if (k_ >= p_.a.width) start();
  }

 private:
  __device__ void issue_b(uint32_t to) const {
    const T* b = p_.b + work_.place * p_.b_place_stride;
    if constexpr (Op::kMajorK) {
      const int k = k_ + place_.chunk * kChunk<T>;
#pragma unroll
      for (int i = 0; i < kTileN / 64; ++i) {
        const int line = Op::b_line(p_, work_.n_tile, i, place_.line);
        const bool valid = line >= 0 && k < p_.a.width;
        copy_chunk(to + place_.offset + i * 64 * kLineBytes, valid ? b + line * p_.b_stride + k : p_.b,
                   valid);
      }
    } else {
      const ColumnPlace<T, kTileN> place;
      const int column = work_.n_tile * kTileN + place.chunk * kChunk<T>;
#pragma unroll
      for (int i = 0; i < place.kCount; ++i) {
        const int k = k_ + place.line + i * place.kLineStep;
        const bool valid = k < p_.a.width && column < p_.b_width;
        copy_chunk(to + place.offset(i), valid ? b + k * p_.b_stride + column : p_.b, valid);
      }
    }
  }
  __device__ void start() {
    k_ = 0;
    work_ = next_;
    if (!work_.valid) return;
#pragma unroll
    for (int i = 0; i < kTileM / 64; ++i)
      a_line_[i] = row_[i] < 0 ? nullptr : p_.a.data + token_of(p_, p_.a.gathered, row_[i]) * p_.a.stride;
    look_ahead();
  }
  // The rows of the tile after the one being fetched: their numbers take as long as a step to arrive.
  __device__ void look_ahead() {
    next_ = table_.rows_tile(index_);
    index_ += gridDim.x;
    if (!next_.valid) return;
#pragma unroll
    for (int i = 0; i < kTileM / 64; ++i) {
      const int row = next_.row_begin + place_.line + i * 64;
      row_[i] = row >= next_.row_end ? -1 : p_.a.gathered ? __ldg(p_.row_assignment + row) : row;
    }
  }

  const typename Op::Params& p_;
  const WorkTable& table_;
  const LinePlace place_;
  int index_, k_;
  Work work_, next_;
  const T* a_line_[kTileM / 64];
  int row_[kTileM / 64];
};

template <class Op>
class OuterLoader {
 public:
  using T = typename Op::T;
  __device__ OuterLoader(const typename Op::Params& p, const WorkTable& table)
      : p_(p), table_(table), index_(blockIdx.x) {
    find_tile();
    look_up();
  }

  __device__ void issue(uint32_t stage) {
    if (!work_.valid) return;
    issue_lines(p_.a, a_, a_row_, work_.m_begin, stage);
    issue_lines(p_.b, b_, b_row_, work_.n_tile * kTileN, stage + kStageABytes);
    row_ += kTileK<T>;
    if (row_ >= work_.row_end) find_tile();
    look_up();
  }

 private:
  template <class Place>
  __device__ void issue_lines(const Lines<T>& lines, const Place& place, const int (&rows)[Place::kCount],
                              int column, uint32_t to) const {
    column += place.chunk * kChunk<T>;
#pragma unroll
    for (int i = 0; i < Place::kCount; ++i) {
      const bool valid = rows[i] >= 0 && column < lines.width;
      const long offset = valid ? token_of(p_, lines.gathered, rows[i]) * lines.stride + column : 0;
      copy_chunk(to + place.offset(i), lines.data + offset, valid);
    }
  }
  // Experts without rows have no steps.
  __device__ void find_tile() {
    do {
      work_ = table_.outer_tile(index_);
      index_ += gridDim.x;
    } while (work_.valid && work_.row_begin == work_.row_end);
    row_ = work_.row_begin;
  }
  // The rows of the next step; rows past the expert's last are zeros in both operands.
  __device__ void look_up() {
    if (!work_.valid) return;
    look_up_lines(p_.a, a_, a_row_);
    look_up_lines(p_.b, b_, b_row_);
  }
  template <class Place>
  __device__ void look_up_lines(const Lines<T>& lines, const Place& place, int (&rows)[Place::kCount]) const {
#pragma unroll
    for (int i = 0; i < Place::kCount; ++i) {
      const int row = row_ + place.line + i * Place::kLineStep;
      rows[i] = row >= work_.row_end ? -1 : lines.gathered ? __ldg(p_.row_assignment + row) : row;
    }
  }

  const typename Op::Params& p_;
  const WorkTable& table_;
  const ColumnPlace<T, kTileM> a_;
  const ColumnPlace<T, kTileN> b_;
  int index_, row_;
  Work work_;
  int a_row_[ColumnPlace<T, kTileM>::kCount], b_row_[ColumnPlace<T, kTileN>::kCount];
};

}  // namespace motley::cuda::sm80
