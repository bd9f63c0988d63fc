// Random 16-bit values, and the comparison of results.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "tests/kernels_cuda/reference.cuh"

namespace motley::cuda::test {

using Values = std::vector<uint16_t>;

inline Values random_values(std::mt19937& generator, DataType type, size_t count, float scale) {
  std::normal_distribution<float> normal(0.f, scale);
  Values values(count);
  for (uint16_t& value : values) value = from_float(type, normal(generator));
  return values;
}

// |got - expected| within `relative` of the element and `absolute` of the root mean square.
inline bool close(const std::vector<float>& got, const std::vector<float>& expected, float relative,
                  float absolute, const char* what) {
  double squares = 0;
  for (float value : expected) squares += double(value) * value;
  const float floor = absolute * std::sqrt(squares / std::max<size_t>(1, expected.size()));
  size_t bad = 0, first = 0;
  for (size_t i = 0; i < expected.size(); ++i)
    if (!(std::abs(got[i] - expected[i]) <= relative * std::abs(expected[i]) + floor) && bad++ == 0)
      first = i;
  if (bad)
    std::printf("  %s: %zu of %zu differ, first at %zu: got %g, expected %g\n", what, bad, expected.size(),
                first, got[first], expected[first]);
  return bad == 0;
}

}  // namespace motley::cuda::test
