// Every CUDA call goes through here: a failure throws with the call, the reason and the place.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace motley::cuda {

[[noreturn]] inline void throw_cuda_error(cudaError_t error, const char* call, const char* file, int line) {
  throw std::runtime_error(std::string("[cuda] ") + call + " failed: " + cudaGetErrorName(error) + " (" +
                           cudaGetErrorString(error) + ") at " + file + ":" + std::to_string(line));
}

}  // namespace motley::cuda

#define MOTLEY_CUDA_CHECK(call)                                                       \
  do {                                                                                \
    const cudaError_t motley_cuda_error = (call);                                     \
    if (motley_cuda_error != cudaSuccess)                                             \
      ::motley::cuda::throw_cuda_error(motley_cuda_error, #call, __FILE__, __LINE__); \
  } while (false)
