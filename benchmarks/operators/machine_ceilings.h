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

// Reads of memory larger than the caches. They are to be taken in turn with what is compared with them: other
// machines of the same host change what memory gives from one second to the next.
class ReadCeiling {
 public:
  // A reading takes the next `bytes`.
  explicit ReadCeiling(int64_t bytes);
  void read();
  // Bytes a second, the median of the faster order; 0 where it cannot be told.
  double median() const;

 private:
  at::Tensor memory_;
  int64_t bytes_;
  int64_t position_ = 0;
  std::vector<double> rates_[2];  // by order
};

// Of `seconds` of readings.
double read_ceiling(double seconds);

}  // namespace motley::bench
