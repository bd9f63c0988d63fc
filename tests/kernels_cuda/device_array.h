// Arrays on the device for tests: poisoned when made, with a guard behind the end that must survive.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda::test {

constexpr int kPoison = 0xff;  // bf16 and float read it as NaN, int as -1
constexpr size_t kGuardBytes = 4096;

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    MOTLEY_CUDA_CHECK(cudaMalloc(&data_, bytes() + kGuardBytes));
    MOTLEY_CUDA_CHECK(cudaMemset(data_, kPoison, bytes() + kGuardBytes));
  }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) {
    MOTLEY_CUDA_CHECK(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* get() const { return data_; }
  size_t size() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }
  std::vector<T> host() const {
    std::vector<T> copy(count_);
    MOTLEY_CUDA_CHECK(cudaMemcpy(copy.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return copy;
  }
  bool guard_intact() const {
    std::vector<uint8_t> guard(kGuardBytes);
    MOTLEY_CUDA_CHECK(cudaMemcpy(guard.data(), reinterpret_cast<char*>(data_) + bytes(), kGuardBytes,
                                 cudaMemcpyDeviceToHost));
    for (uint8_t byte : guard)
      if (byte != kPoison) return false;
    return true;
  }

 private:
  size_t count_;
  T* data_ = nullptr;
};

// Counts failures; every check prints one line when it fails.
struct Report {
  int passed = 0, failed = 0;
  std::string name;
  bool check(bool good, const char* what) {
    good ? ++passed : ++failed;
    if (!good) std::printf("FAILED %s: %s\n", name.c_str(), what);
    return good;
  }
};

}  // namespace motley::cuda::test
