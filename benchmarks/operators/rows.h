// What the operators' benchmarks report: a time beside its floor, the larger of what the operands' bytes take
// to read and what the operations take at the instruction peak.
#pragma once

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <functional>
#include <string>

#include "benchmarks/timing.h"

namespace motley::bench {

struct Work {
  double flops, bytes;
};

struct OperatorRow {
  std::string name;
  at::ScalarType type;
  Timing time;
  Work work;
  double peak, read;  // FLOP/s and bytes a second of as many threads, measured in the same run; read may be 0
  double share_of_floor = 0;  // the median over pairs of runs, where the floor was measured in turn
  std::string remark = "";

  double share_of_peak() const { return work.flops / time.median / peak; }
  double share_of_read() const { return read > 0 ? work.bytes / time.median / read : 0; }
  double share() const {
    return share_of_floor > 0 ? share_of_floor : std::max(share_of_peak(), share_of_read());
  }
};

struct OperatorBench {
  double fp32, bf16, read;  // ceilings of all threads
  double seconds;           // for each row
  std::function<void(const OperatorRow&)> report;

  double peak(at::ScalarType type) const { return type == at::kFloat ? fp32 : bf16; }
};

// Measure with the weights of one type and report their rows. Shapes are those of docs/benchmarks.md.
void bench_matmul(const OperatorBench& bench, at::ScalarType type);
void bench_ffn(const OperatorBench& bench, at::ScalarType type);
void bench_decode(const OperatorBench& bench, at::ScalarType type);
// On 1, 2, 4 .. threads, at most as many as torch is set to, in turn.
void bench_scaling(const OperatorBench& bench, at::ScalarType type);

}  // namespace motley::bench
