// What all of torch's threads can do at once, measured now: clocks fall, and memory is shared, as more cores
// work.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace motley::bench {

// FLOP/s; those of bf16 by the instructions of the kernels in use.
double fp32_ceiling();
double bf16_ceiling();

// Reads memory larger than the caches. Readings are to be taken in turn with what is compared with them:
// other machines of the same host change what memory gives from one second to the next.
class ReadCeiling {
 public:
  ReadCeiling();
  // Reads the next `bytes`, in whichever order has been faster in the first readings; bytes a second, 0 where
  // that cannot be told.
  double rate(int64_t bytes);

 private:
  double read(int64_t bytes, bool by_pages);

  at::Tensor memory_;
  int64_t position_ = 0;
  bool by_pages_ = false;
};

// Of `seconds` of readings.
double read_ceiling(double seconds);

}  // namespace motley::bench
