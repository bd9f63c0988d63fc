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

// A step is issued in kIssueParts parts, between the products of the step before: a warp that works out
// addresses multiplies nothing meanwhile.
constexpr int kIssueParts = 4;

// Op gives T, kMajorK (whether B's lines run along K), and, for a K-major B, b_column(p, n_tile, line): the
// column of the product that place `line` of the first 64 stands for, b_step(p): by how much each further 64
// advance it, b_line(p, column, line): B's line of that column.
template <class Op>
class RowsLoader {
 public:
  using T = typename Op::T;
  __device__ RowsLoader(const typename Op::Params& p, const WorkTable& table)
      : p_(p), table_(table), index_(blockIdx.x) {
    look_ahead();
    start();
  }

  __device__ void issue(uint32_t stage, int part) {
    static_assert(kCountA == 2 && kCountB == 4);
    if (part == 0) {
      const bool inside = k_ + lines_.chunk * kChunk<T> < p_.a.width;
#pragma unroll
      for (int i = 0; i < kCountA; ++i) {
        const bool valid = inside && row_valid_[i];
        copy_chunk(stage + lines_.offset + i * 64 * kLineBytes, valid ? a_[i] : p_.a.data, valid);
      }
    } else if (part < 3) {
      issue_b(stage + kStageABytes, 2 * part - 2);
      issue_b(stage + kStageABytes, 2 * part - 1);
    } else {
      k_ += kTileK<T>;
      for (auto& line : a_) line += kTileK<T>;
      b_ += Op::kMajorK ? kTileK<T> : kTileK<T> * p_.b_stride;
      if (k_ >= p_.a.width) start();
    }
  }

 private:
  using Columns = ColumnPlace<T, kTileN>;
  static constexpr int kCountA = kTileM / 64, kCountB = kTileN / 64;
  static_assert(Columns::kCount == kCountB);

  __device__ void issue_b(uint32_t to, int i) const {
    if constexpr (Op::kMajorK) {
      const bool valid = i < b_count_ && k_ + lines_.chunk * kChunk<T> < p_.a.width;
      const T* from = b_ + i * (Op::b_step(p_) * p_.b_stride);
      copy_chunk(to + lines_.offset + i * 64 * kLineBytes, valid ? from : p_.b, valid);
    } else {
      const bool valid = b_count_ > 0 && k_ + columns_.line + i * Columns::kLineStep < p_.a.width;
      const T* from = b_ + i * (Columns::kLineStep * p_.b_stride);
      copy_chunk(to + columns_.offset(i), valid ? from : p_.b, valid);
    }
  }
  // Without a next tile nothing is valid any more.
  __device__ void start() {
    k_ = 0;
#pragma unroll
    for (int i = 0; i < kCountA; ++i) {
      row_valid_[i] = next_.valid && row_[i] >= 0;
      const int line = p_.a.gathered ? static_cast<int>(p_.top_k.divide(row_[i])) : row_[i];
      a_[i] = p_.a.data + (row_valid_[i] ? line : 0) * p_.a.stride + lines_.chunk * kChunk<T>;
    }
    b_ = p_.b + next_.place * p_.b_place_stride;
    if constexpr (Op::kMajorK) {
      const int column = Op::b_column(p_, next_.n_tile, lines_.line), step = Op::b_step(p_);
      b_count_ = next_.valid ? (Op::num_columns(p_) - column + step - 1) / step : 0;
      b_ += Op::b_line(p_, column, lines_.line) * p_.b_stride + lines_.chunk * kChunk<T>;
    } else {
      const int column = next_.n_tile * kTileN + columns_.chunk * kChunk<T>;
      b_count_ = next_.valid && column < p_.b_width;
      b_ += columns_.line * p_.b_stride + column;
    }
    if (next_.valid) look_ahead();
  }
  // The rows of the tile after the one being fetched: their numbers take as long as a step to arrive.
  __device__ void look_ahead() {
    next_ = table_.rows_tile(index_);
    index_ += gridDim.x;
    if (!next_.valid) return;
#pragma unroll
    for (int i = 0; i < kCountA; ++i) {
      const int row = next_.row_begin + lines_.line + i * 64;
      row_[i] = row >= next_.row_end ? -1 : p_.a.gathered ? __ldg(p_.row_assignment + row) : row;
    }
  }

  const typename Op::Params& p_;
  const WorkTable& table_;
  const LinePlace lines_;
  const Columns columns_;
  int index_, k_;
  Work next_;
  const T* a_[kCountA];
  bool row_valid_[kCountA];
  const T* b_;
  int b_count_;
  int row_[kCountA];
};

// K runs over rows. The lanes of a warp copy chunks of few lines; each works out where one line begins and
// hands that round.
template <class Op>
class OuterLoader {
 public:
  using T = typename Op::T;
  __device__ OuterLoader(const typename Op::Params& p, const WorkTable& table)
      : p_(p),
        table_(table),
        of_b_(threadIdx.x % 16 >= kFirstB),
        assignment_((of_b_ ? p.b.gathered : p.a.gathered) ? p.row_assignment : nullptr),
        stride_((of_b_ ? p.b.stride : p.a.stride) / kChunk<T>),
        line_(of_b_ ? first_line<PlaceB>() + threadIdx.x % kFirstB % PlaceB::kCount * PlaceB::kLineStep
                    : first_line<PlaceA>() + threadIdx.x % kFirstB % kLinesA +
                          threadIdx.x % kFirstB / kLinesA % PlaceA::kCount * PlaceA::kLineStep),
        index_(blockIdx.x) {
    find_tile();
    look_up();
  }

  __device__ void issue(uint32_t stage, int part) {
    static_assert(PlaceA::kCount == 2 && PlaceB::kCount == 4);
    if (part == 0) {
      offset_ = row_ < 0 ? kNoLine : (assignment_ ? p_.top_k.divide(row_) : row_) * stride_;
      a_column_ = work_.m_begin + a_.chunk * kChunk<T>;
      b_column_ = work_.n_tile * kTileN + b_.chunk * kChunk<T>;
      for (int i = 0; i < 2; ++i)
        copy(p_.a, i * kLinesA + threadIdx.x % 32 / PlaceA::kChunks, a_column_, stage + a_.offset(i));
    } else if (part < 3) {
      for (int i = 2 * part - 2; i < 2 * part; ++i)
        copy(p_.b, kFirstB + i, b_column_, stage + kStageABytes + b_.offset(i));
    } else {
      k_ += kTileK<T>;
      if (k_ >= work_.row_end) find_tile();
      look_up();
    }
  }

 private:
  using PlaceA = ColumnPlace<T, kTileM>;
  using PlaceB = ColumnPlace<T, kTileN>;
  static constexpr int kFirstB = 8;  // lanes that look up lines of B; those before do for A
  static constexpr int kLinesA = 32 / PlaceA::kChunks;  // of a warp in one copy
  static constexpr uint32_t kNoLine = 0xffffffffu;
  static_assert(kLinesA * PlaceA::kCount <= kFirstB && PlaceB::kCount <= kFirstB && PlaceB::kChunks >= 32);

  template <class Place>
  __device__ static int first_line() {
    return threadIdx.x / 32 * 32 / Place::kChunks;
  }
  __device__ void copy(const Lines<T>& lines, int from_lane, int column, uint32_t to) const {
    const uint32_t offset = __shfl_sync(kAllLanes, offset_, from_lane);
    const bool valid = offset != kNoLine && column < lines.width;
    copy_chunk(to, lines.data + (valid ? size_t(offset) * kChunk<T> + column : 0), valid);
  }
  // Experts without rows have no steps.
  __device__ void find_tile() {
    do {
      work_ = table_.outer_tile(index_);
      index_ += gridDim.x;
    } while (work_.valid && work_.row_begin == work_.row_end);
    k_ = work_.row_begin;
  }
  // The lines of the next step; rows past the expert's last are zeros in both operands.
  __device__ void look_up() {
    const int row = k_ + line_;
    row_ = !work_.valid || row >= work_.row_end ? -1 : assignment_ ? __ldg(assignment_ + row) : row;
  }

  const typename Op::Params& p_;
  const WorkTable& table_;
  const PlaceA a_;
  const PlaceB b_;
  const bool of_b_;  // this lane looks up a line of B
  const int* const assignment_;
  const uint32_t stride_;  // in chunks, as offset_
  const int line_;
  int index_, k_, row_;
  uint32_t offset_;
  int a_column_, b_column_;
  Work work_;
};

}  // namespace motley::cuda::sm80
