#include "motley/kernels/cuda/token_sum.h"

#include <algorithm>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda {
namespace {

constexpr int kVector = 8;  // bf16 elements in one 16-byte access
constexpr int kBatch = 8;   // rows whose loads are in flight together
constexpr int kMaxThreads = 256;

__device__ void store(__nv_bfloat16* y, const float (&sum)[kVector]) {
  union {
    uint4 bits;
    __nv_bfloat162 pair[4];
  } packed;
  for (int i = 0; i < 4; ++i) packed.pair[i] = __floats2bfloat162_rn(sum[2 * i], sum[2 * i + 1]);
  *reinterpret_cast<uint4*>(y) = packed.bits;
}

__device__ void store(float* y, const float (&sum)[kVector]) {
  reinterpret_cast<float4*>(y)[0] = {sum[0], sum[1], sum[2], sum[3]};
  reinterpret_cast<float4*>(y)[1] = {sum[4], sum[5], sum[6], sum[7]};
}

// One block per token. Memory-bound: N x D is read once, T x D written once.
template <class Out>
__global__ void __launch_bounds__(kMaxThreads)
    sum_rows(const __nv_bfloat16* __restrict__ rows, const float* __restrict__ gate_weights,
             const int* __restrict__ token_rows, int top_k, int width, Out* __restrict__ y) {
  const long token = blockIdx.x;
  const int* mine = token_rows + token * top_k;
  for (int column = threadIdx.x * kVector; column < width; column += blockDim.x * kVector) {
    float sum[kVector] = {};
    for (int first = 0; first < top_k; first += kBatch) {
      uint4 value[kBatch];
      float weight[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int row = first + i < top_k ? mine[first + i] : -1;
        weight[i] = row < 0 ? 0.f : gate_weights ? gate_weights[token * top_k + first + i] : 1.f;
        value[i] = row < 0 ? uint4{} : *reinterpret_cast<const uint4*>(rows + (long)row * width + column);
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const __nv_bfloat162* pair = reinterpret_cast<const __nv_bfloat162*>(&value[i]);
        for (int j = 0; j < 4; ++j) {
          const float2 both = __bfloat1622float2(pair[j]);
          sum[2 * j] += weight[i] * both.x;
          sum[2 * j + 1] += weight[i] * both.y;
        }
      }
    }
    store(y + token * width + column, sum);
  }
}

__global__ void __launch_bounds__(kMaxThreads)
    sum_parts(const float* partial, int num_parts, long part_stride, const int* token_rows,
              int num_assignments, float* dgate_weights) {
  const int assignment = blockIdx.x * kMaxThreads + threadIdx.x;
  if (assignment >= num_assignments) return;
  const int row = token_rows[assignment];
  float sum = 0.f;
  if (row >= 0)
    for (int part = 0; part < num_parts; ++part) sum += partial[part * part_stride + row];
  dgate_weights[assignment] = sum;
}

}  // namespace

template <class Out>
void token_sum(const __nv_bfloat16* rows, const float* gate_weights, const int* token_rows, int num_tokens,
               int top_k, int width, Out* y, cudaStream_t stream) {
  if (num_tokens == 0) return;
  const int threads = std::min(kMaxThreads, (width / kVector + 31) / 32 * 32);
  sum_rows<<<num_tokens, threads, 0, stream>>>(rows, gate_weights, token_rows, top_k, width, y);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

template void token_sum(const __nv_bfloat16*, const float*, const int*, int, int, int, __nv_bfloat16*,
                        cudaStream_t);
template void token_sum(const __nv_bfloat16*, const float*, const int*, int, int, int, float*, cudaStream_t);

void gate_weight_sum(const float* partial, int num_parts, long part_stride, const int* token_rows,
                     int num_assignments, float* dgate_weights, cudaStream_t stream) {
  if (num_assignments == 0) return;
  sum_parts<<<(num_assignments + kMaxThreads - 1) / kMaxThreads, kMaxThreads, 0, stream>>>(
      partial, num_parts, part_stride, token_rows, num_assignments, dgate_weights);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda
