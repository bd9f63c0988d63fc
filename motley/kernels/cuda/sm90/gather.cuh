// Gathered A: the warp group that multiplies a block of 64 rows also fetches it, by cp.async, some k
// blocks ahead, into a ring of its own. (A producer warp that gathered for both groups held them up: 475
// TFLOP/s where rows in order reached 712.) The swizzle is the one wgmma reads: 16-byte chunk c of
// 128-byte line r lies at place c ^ (r % 8).
#pragma once

#include "motley/kernels/cuda/sm90/pipeline.cuh"

namespace motley::cuda::sm90 {

constexpr uint32_t kNoRow = 0xffffffffu;

// Eight threads copy a line of 64 columns; 128 threads, 16 lines at a time.
class LineCopy {
 public:
  __device__ LineCopy(const GemmParams& p, int thread)
      : p_(p), line(thread / 8), chunk(thread % 8), swizzled_(line * 128 + (chunk ^ (line % 8)) * 16) {}

  __device__ int assignment(int row, int row_end) const {
    return row >= row_end ? -1 : __ldg(p_.row_assignment + row);
  }
  // In 16-byte units.
  __device__ uint32_t offset(int assignment) const {
    return assignment < 0 ? kNoRow : p_.top_k.divide(assignment) * p_.gathered_stride;
  }
  // Line i of the four of this thread, columns from `column`; zeros where there are none.
  __device__ void copy(int i, uint32_t offset, int column, Element* block) const {
    const bool valid = offset != kNoRow && column < p_.gathered_width;
    const __nv_bfloat16* from = p_.gathered + (valid ? size_t(offset) * 8 + column : 0);
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                     cute::cast_smem_ptr_to_uint(block) + swizzled_ + i * 16 * 128),
                 "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
  }

 private:
  const GemmParams& p_;

 public:
  const int line, chunk;

 private:
  const uint32_t swizzled_;
};

// K runs over columns: rows of a tile are looked up once, while the tile before is multiplied.
class RowGather {
 public:
  __device__ RowGather(const GemmParams& p, int half, int rank, int thread)
      : copy_(p, thread), ahead_(p), half_(half), rank_(rank) {
    look_ahead();
    start();
  }
  // Begins the next k block, if there is one, into `block`.
  __device__ void issue(Element* block, uint64_t* gathered) {
    if (!valid_) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) copy_.copy(i, offset_[i], k_ * kTileK + copy_.chunk * 8, block);
    cutlass::arch::cpasync_barrier_arrive_noinc(gathered);
    if (++k_ == ahead_.k_blocks()) start();
  }

 private:
  __device__ void start() {
    k_ = 0;
    valid_ = ahead_.valid();
#pragma unroll
    for (int i = 0; i < 4; ++i) offset_[i] = copy_.offset(assignment_[i]);
    if (!valid_) return;
    ahead_.advance();
    look_ahead();
  }
  __device__ void look_ahead() {
    while (ahead_.valid() && !ahead_.active(half_, rank_)) ahead_.advance();
    if (!ahead_.valid()) return;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      assignment_[i] =
          copy_.assignment(ahead_.block_begin(half_, rank_) + copy_.line + 16 * i, ahead_.work().row_end);
  }

  LineCopy copy_;
  RowsWalk ahead_;  // at the tile after the one being fetched
  const int half_, rank_;
  int k_ = 0;
  bool valid_ = false;
  uint32_t offset_[4];
  int assignment_[4] = {-1, -1, -1, -1};
};

// K runs over rows. A warp copies 16 of the 64 lines of a k block; its lanes read the numbers of those of
// two k blocks at once, and that two to four k blocks ahead, because under load even L2 takes longer to
// answer than one k block to multiply.
class DepthGather {
 public:
  __device__ DepthGather(const GemmParams& p, int half, int rank, int thread)
      : copy_(p, thread), ahead_(p), half_(half), rank_(rank), lane_(thread % 32), warp_(thread / 32) {
    find_tile();
    look_up();
    start_pair();
  }
  __device__ void issue(Element* block, uint64_t* gathered) {
    if (left_ == 0) return;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      copy_.copy(i, __shfl_sync(0xffffffffu, offset_, second_ + 4 * i + lane_ / 8), column_, block);
    cutlass::arch::cpasync_barrier_arrive_noinc(gathered);
    second_ = 16;
    if (--left_ == 0) start_pair();
  }

 private:
  __device__ void start_pair() {
    if (!ahead_.valid()) return;
    offset_ = copy_.offset(assignment_);
    column_ = ahead_.block_begin(half_, rank_) + copy_.chunk * 8;
    left_ = min(2, ahead_.k_blocks() - pair_ * 2);
    second_ = 0;
    if (++pair_ * 2 >= ahead_.k_blocks()) {
      ahead_.advance();
      find_tile();
    }
    look_up();
  }
  __device__ void find_tile() {
    pair_ = 0;
    while (ahead_.valid() && (ahead_.k_blocks() == 0 || !ahead_.active(half_, rank_))) ahead_.advance();
  }
  // Lane 16 b + 4 i + q: line 4 warp + q + 16 i of k block b of the pair.
  __device__ void look_up() {
    if (!ahead_.valid()) return;
    const int line = lane_ / 16 * kTileK + lane_ / 4 % 4 * 16 + warp_ * 4 + lane_ % 4;
    assignment_ = copy_.assignment(ahead_.k_begin() + pair_ * 2 * kTileK + line, ahead_.work().row_end);
  }

  LineCopy copy_;
  OuterWalk ahead_;  // at the pair after the one being fetched
  const int half_, rank_, lane_, warp_;
  int pair_ = 0, assignment_ = -1;
  int left_ = 0, second_ = 0, column_ = 0;  // of the pair being fetched
  uint32_t offset_ = kNoRow;
};

// Rows in order come by TMA.
class NoGather {
 public:
  __device__ NoGather(const GemmParams&, int, int, int) {}
  __device__ void issue(Element*, uint64_t*) {}
};

}  // namespace motley::cuda::sm90
