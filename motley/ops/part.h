// Names the part of a model that runs now, for whoever measures it: torch's profiler, `motley bench train`.
#pragma once

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>

namespace motley {

// From construction to destruction. Autograd nodes made in between belong to the part, too: the record
// carries the number that the next node gets. Costs a few nanoseconds where nobody listens.
class Part {
 public:
  explicit Part(const char* name) : record_(at::RecordScope::USER_SCOPE) {
    if (record_.isActive()) record_.before(name, static_cast<int64_t>(at::sequence_number::peek()));
  }

 private:
  at::RecordFunction record_;
};

}  // namespace motley
