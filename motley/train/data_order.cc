#include "motley/train/data_order.h"

#include <algorithm>

#include "motley/base/error.h"

namespace motley {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
  value = (value ^ value >> 27) * 0x94d049bb133111eb;
  return value ^ value >> 31;
}

// A permutation of [0, count) without a table: a Feistel network over the next power of four, walked until
// it lands inside (fewer than four times on average).
uint64_t permute(uint64_t index, uint64_t count, uint64_t key) {
  int half_bits = 1;
  while (uint64_t{1} << (2 * half_bits) < count) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  do {
    uint64_t left = index >> half_bits, right = index & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t next = left ^ (mix(key ^ mix(right * 4 + round)) & mask);
      left = right;
      right = next;
    }
    index = left << half_bits | right;
  } while (index >= count);
  return index;
}

}  // namespace

uint64_t mix_seed(uint64_t seed, uint64_t stream, uint64_t index) {
  return mix(mix(mix(seed) ^ stream) ^ index);
}

DataOrder::DataOrder(uint64_t seed, int64_t num_tokens, int64_t sequence_length)
    : seed_(seed), num_tokens_(num_tokens), sequence_length_(sequence_length), num_windows_(0) {
  if (num_tokens <= sequence_length) {
    throw UserError(Mistake{"data.sequence_length", concat("less than the ", num_tokens, " training tokens"),
                            concat(sequence_length), "shorten the sequences or take more text"});
  }
  // One window less than fits, where there are several, leaves room to shift the cut.
  num_windows_ = std::max<int64_t>(1, (num_tokens - 1) / sequence_length - 1);
}

int64_t DataOrder::begin(int64_t index) const {
  const int64_t epoch = index / num_windows_;
  const int64_t spare = num_tokens_ - 1 - num_windows_ * sequence_length_;  // the last target needs one token
  const uint64_t key = mix_seed(seed_, 1, static_cast<uint64_t>(epoch));
  const auto shift = static_cast<int64_t>(mix(key) % static_cast<uint64_t>(spare + 1));
  const auto window = static_cast<int64_t>(
      permute(static_cast<uint64_t>(index % num_windows_), static_cast<uint64_t>(num_windows_), key));
  return shift + window * sequence_length_;
}

}  // namespace motley
