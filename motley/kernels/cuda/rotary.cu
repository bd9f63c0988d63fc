#include "motley/kernels/cuda/rotary.h"

#include <algorithm>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr long kMaxBlocks = 65536;

template <class T>
__global__ void __launch_bounds__(kThreads)
    turn(const T* x, long x_stride, const long* positions, const float* table, int max_positions,
         long num_pairs, int num_heads, int half, float sign, T* y) {
  for (long i = (long)blockIdx.x * kThreads + threadIdx.x; i < num_pairs; i += (long)gridDim.x * kThreads) {
    const long token = i / (num_heads * half);
    const int within = i % (num_heads * half), head = within / half, at = within % half;
    const long position = positions[token];
    const bool known = position >= 0 && position < max_positions;
    const float* angles = table + (known ? position : 0) * 2 * half;
    const float cosine = known ? angles[at] : NAN, sine = sign * angles[half + at];
    const T* from = x + token * x_stride + (long)head * 2 * half + at;
    T* to = y + (token * num_heads + head) * 2 * half + at;
    const float a = to_float(from[0]), b = to_float(from[half]);
    to[0] = from_float<T>(a * cosine - b * sine);
    to[half] = from_float<T>(b * cosine + a * sine);
  }
}

}  // namespace

void rotary(const void* x, Element element, long x_stride, const long* positions, const float* table,
            int max_positions, int num_tokens, int num_heads, int head_dim, bool inverse, void* y,
            cudaStream_t stream) {
  const long num_pairs = (long)num_tokens * num_heads * (head_dim / 2);
  if (num_pairs == 0) return;
  const int blocks = static_cast<int>(std::min((num_pairs + kThreads - 1) / kThreads, kMaxBlocks));
  with_element(element, [&]<class T>() {
    turn<T><<<blocks, kThreads, 0, stream>>>(static_cast<const T*>(x), x_stride, positions, table,
                                             max_positions, num_pairs, num_heads, head_dim / 2,
                                             inverse ? -1.f : 1.f, static_cast<T*>(y));
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda
