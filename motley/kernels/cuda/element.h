// The element types of arrays that kernels take as void*.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <stdexcept>

namespace motley::cuda {

enum class Element { kFloat32, kBFloat16, kFloat16 };

// Calls function.template operator()<T>() with the type that `element` stands for.
template <class Function>
void with_element(Element element, Function function) {
  switch (element) {
    case Element::kFloat32:
      return function.template operator()<float>();
    case Element::kBFloat16:
      return function.template operator()<__nv_bfloat16>();
    case Element::kFloat16:
      return function.template operator()<__half>();
  }
  throw std::invalid_argument("[cuda] unknown element type");
}

#ifdef __CUDACC__
__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float to_float(__half value) { return __half2float(value); }

template <class T>
__device__ T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ inline __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
#endif

}  // namespace motley::cuda
