// Every family that this machine runs and a model of the one with tile registers, both dtypes, and data that
// starts at odd addresses.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "motley/kernels/cpu/families.h"
#include "tests/kernels/tile_model.h"

namespace motley::kernels::testing {

inline float bf16_value(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

inline uint16_t bf16_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// `count` numbers of one dtype, one element past an aligned address.
class Data {
 public:
  Data(DType type, int64_t count) : type_(type), count_(count), bytes_((count + 1) * size_of(type) + 64) {}
  Data(DType type, int64_t count, unsigned seed) : Data(type, count) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < count; ++i) set(i, normal(generator));
  }
  DType type() const { return type_; }
  int64_t count() const { return count_; }
  void* at(int64_t i) { return bytes_.data() + (i + 1) * size_of(type_); }
  const void* at(int64_t i) const { return bytes_.data() + (i + 1) * size_of(type_); }
  void set(int64_t i, float value) {
    if (type_ == DType::kFloat32) {
      std::memcpy(at(i), &value, 4);
    } else {
      const uint16_t bits = bf16_bits(value);
      std::memcpy(at(i), &bits, 2);
    }
  }
  double operator[](int64_t i) const {
    if (type_ == DType::kFloat32) {
      float value;
      std::memcpy(&value, at(i), 4);
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, at(i), 2);
    return bf16_value(bits);
  }
  std::vector<const void*> rows(int64_t num_rows, int64_t width) const {
    std::vector<const void*> pointers;
    for (int64_t i = 0; i < num_rows; ++i) pointers.push_back(at(i * width));
    return pointers;
  }
  std::vector<void*> rows(int64_t num_rows, int64_t width) {
    std::vector<void*> pointers;
    for (int64_t i = 0; i < num_rows; ++i) pointers.push_back(at(i * width));
    return pointers;
  }

 private:
  DType type_;
  int64_t count_;
  std::vector<std::byte> bytes_;
};

// Of a sum of `depth` products of numbers near 1 that is rounded to `type` once.
inline double tolerance(DType type, double value, int64_t depth) {
  const double sum = 4e-6 + 1.5e-7 * static_cast<double>(depth);
  return type == DType::kFloat32 ? sum + 1e-6 * std::fabs(value) : sum + 4.1e-3 * std::fabs(value);
}

using Case = std::tuple<const Family*, DType>;

inline std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Family& family : cpu_families()) {
    if (!family.available) continue;
    all.emplace_back(&family, DType::kFloat32);
    all.emplace_back(&family, DType::kBFloat16);
  }
  all.emplace_back(&tile_model(), DType::kBFloat16);
  return all;
}

inline std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  const auto& [family, type] = info.param;
  return family->name + (type == DType::kFloat32 ? "_fp32" : "_bf16");
}

class KernelsTest : public ::testing::TestWithParam<Case> {
 protected:
  const CpuKernels& kernels() const { return *std::get<0>(GetParam())->kernels; }
  DType type() const { return std::get<1>(GetParam()); }
  DType panel_type() const { return kernels().panel_type(type()); }
};

// Element (k, lane) of a panel.
inline double panel_value(const Panel& panel, int64_t k, int lane) {
  const auto* at = panel.line(panel.units(k), lane / kVectorLanes) + lane % kVectorLanes * 4;
  if (panel.type == DType::kFloat32) return *reinterpret_cast<const float*>(at);
  return bf16_value(reinterpret_cast<const uint16_t*>(at)[k % 2]);
}

}  // namespace motley::kernels::testing
