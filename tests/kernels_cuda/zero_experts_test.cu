// The sum of a token's rows and zero-computation experts against a loop in fp64 on the host.
#include "motley/kernels/cuda/zero_experts.h"

#include <cmath>
#include <string>

#include "tests/kernels_cuda/reference.cuh"
#include "tests/kernels_cuda/tests.h"
#include "tests/kernels_cuda/values.h"

namespace motley::cuda::test {
namespace {

struct Case {
  int tokens, width, top_k;
  bool rows = true;
};
constexpr int kExperts = 3, kZeroExperts = 4;  // constant 1, nothing, constant 0, x
constexpr short kGives[kZeroExperts] = {1, kGivesNothing, 0, kGivesX};

std::mt19937 generator(17);

std::vector<float> floats(const Values& values) {
  std::vector<float> converted;
  for (uint16_t value : values) converted.push_back(to_float(DataType::kBf16, value));
  return converted;
}

std::vector<float> expected_sums(const Case& c, const std::vector<float>& x, const std::vector<int>& slots,
                                 const std::vector<int>& row_of, const std::vector<float>& weights,
                                 const std::vector<float>& rows, const std::vector<float>& constant,
                                 const std::vector<float>& gate) {
  std::vector<float> y(x.size());
  for (int t = 0; t < c.tokens; ++t) {
    const float* mine = x.data() + size_t(t) * c.width;
    std::vector<double> sum(c.width, 0.0);
    for (int k = t * c.top_k; k < (t + 1) * c.top_k; ++k) {
      const int gives = slots[k] < kExperts ? kGivesNothing : kGives[slots[k] - kExperts];
      double of_x = gives == kGivesX ? 1 : 0, of_v = 0;
      if (gives >= 0) {
        double difference = 0;
        for (int d = 0; d < c.width; ++d)
          difference += double(gate[(2 * gives + 1) * c.width + d] - gate[2 * gives * c.width + d]) * mine[d];
        of_x = 1 / (1 + std::exp(difference));
        of_v = 1 - of_x;
      }
      for (int d = 0; d < c.width; ++d) {
        if (row_of[k] >= 0 && c.rows) sum[d] += weights[k] * rows[size_t(row_of[k]) * c.width + d];
        if (row_of[k] < 0) sum[d] += weights[k] * of_x * mine[d];
        if (row_of[k] < 0 && gives >= 0) sum[d] += weights[k] * of_v * constant[gives * c.width + d];
      }
    }
    for (int d = 0; d < c.width; ++d) y[size_t(t) * c.width + d] = static_cast<float>(sum[d]);
  }
  return y;
}

void check(Report& report, const Case& c) {
  const int T = c.tokens, D = c.width, K = c.top_k;
  std::vector<int> slots(T * K), row_of(T * K, -1);
  std::vector<float> weights(T * K);
  int num_rows = 0;
  for (int i = 0; i < T * K; ++i) {
    slots[i] = static_cast<int>(generator() % (kExperts + kZeroExperts + 1)) - 1;
    if (c.rows && slots[i] >= 0 && slots[i] < kExperts) row_of[i] = num_rows++;
    weights[i] = 0.1f + generator() % 1000 * 1e-3f;
  }
  std::shuffle(row_of.begin(), row_of.end(), std::mt19937(0));  // rows need not belong to experts here
  const Values x = random_values(generator, DataType::kBf16, size_t(T) * D, 1),
               rows = random_values(generator, DataType::kBf16, size_t(num_rows) * D, 1),
               constant = random_values(generator, DataType::kBf16, 2 * D, 1),
               gate = random_values(generator, DataType::kBf16, 4 * D, 1 / std::sqrt(D));
  const std::vector<float> expected =
      expected_sums(c, floats(x), slots, row_of, weights, floats(rows), floats(constant), floats(gate));
  DeviceArray<uint16_t> device_x(x), device_rows(rows), device_constant(constant), device_gate(gate);
  DeviceArray<float> constant_fp32(floats(constant)), gate_fp32(floats(gate)), device_weights(weights);
  DeviceArray<int> device_slots(slots), device_row_of(row_of);
  for (const bool fp32_parameters : {false, true}) {
    ZeroExpertLayer layer{device_x.get(),
                          Element::kBFloat16,
                          device_slots.get(),
                          device_weights.get(),
                          T,
                          K,
                          D,
                          kExperts,
                          kZeroExperts,
                          2,
                          Element::kBFloat16,
                          device_constant.get(),
                          device_gate.get(),
                          {}};
    std::copy(kGives, kGives + kZeroExperts, layer.gives);
    if (fp32_parameters) {
      layer.parameters = Element::kFloat32;
      layer.constant = constant_fp32.get(), layer.constant_gate = gate_fp32.get();
    }
    DeviceArray<float> y(expected.size());
    DeviceArray<uint16_t> rounded(expected.size());
    ZeroExpertSum sum{c.rows ? device_rows.get() : nullptr, c.rows ? device_row_of.get() : nullptr, y.get(),
                      true};
    zero_experts(layer, sum, nullptr);
    sum.y = rounded.get(), sum.y_fp32 = false;
    zero_experts(layer, sum, nullptr);
    MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
    const std::vector<float> got = y.host();
    const std::vector<uint16_t> got_rounded = rounded.host();
    report.check(close(got, expected, 1e-4f, 1e-4f, "y"), fp32_parameters ? "fp32 parameters" : "y");
    bool same = true;
    for (size_t i = 0; i < got.size(); ++i)
      same = same && got_rounded[i] == from_float(DataType::kBf16, got[i]);
    report.check(same, "rounded once");
    report.check(y.guard_intact() && rounded.guard_intact(), "guards");
  }
}

}  // namespace

void test_zero_experts(Report& report, int most_cases) {
  const Case cases[] = {{1, 8, 1},    {5, 72, 4},         {3, 13, 40},    {4100, 16, 2},
                        {9, 2056, 3}, {20, 64, 4, false}, {5000, 264, 3}, {300, 4096, 8}};
  int index = 0;
  for (const Case& c : cases) {
    if (index++ >= most_cases) break;
    report.name = "zero experts " + std::to_string(c.tokens) + "," + std::to_string(c.width) + "," +
                  std::to_string(c.top_k);
    check(report, c);
  }
}

}  // namespace motley::cuda::test
