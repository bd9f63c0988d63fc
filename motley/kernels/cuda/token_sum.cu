#include "motley/kernels/cuda/token_sum.h"

#include <algorithm>

#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/vector.cuh"

namespace motley::cuda {
namespace {

constexpr int kBatch = 8;  // rows whose loads are in flight together
constexpr int kMaxThreads = 256;
constexpr int kVector = Vector<float>::kSize;

// One block per token. Memory-bound: N x D is read once, T x D written once.
template <class Element, class Out>
__global__ void __launch_bounds__(kMaxThreads)
    sum_rows(const Element* __restrict__ rows, const float* __restrict__ gate_weights,
             const int* __restrict__ token_rows, int top_k, int width, Out* __restrict__ y) {
  const long token = blockIdx.x;
  const int* mine = token_rows + token * top_k;
  for (int column = threadIdx.x * kVector; column < width; column += blockDim.x * kVector) {
    float sum[kVector] = {};
    for (int first = 0; first < top_k; first += kBatch) {
      Vector<Element> value[kBatch];
      float weight[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int row = first + i < top_k ? mine[first + i] : -1;
        weight[i] = row < 0 ? 0.f : gate_weights ? gate_weights[token * top_k + first + i] : 1.f;
        value[i] = row < 0 ? Vector<Element>{} : load(rows + (long)row * width + column);
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i)
        for (int j = 0; j < kVector; ++j) sum[j] += weight[i] * value[i][j];
    }
    store(y + token * width + column, sum);
  }
}

__global__ void __launch_bounds__(kMaxThreads)
    invert(const int* __restrict__ row_assignment, int max_rows, int* __restrict__ token_rows) {
  const int row = blockIdx.x * kMaxThreads + threadIdx.x;
  const int assignment = row < max_rows ? row_assignment[row] : -1;
  if (assignment >= 0) token_rows[assignment] = row;
}

// One block per token: x is read once, though it is wanted in top_k places.
template <class Element>
__global__ void __launch_bounds__(kMaxThreads)
    copy_tokens(const Element* __restrict__ x, long x_stride, const int* __restrict__ token_rows, int top_k,
                int width, Element* __restrict__ rows) {
  constexpr int kElements = sizeof(uint4) / sizeof(Element);
  const long token = blockIdx.x;
  for (int column = threadIdx.x * kElements; column < width; column += blockDim.x * kElements) {
    const uint4 value = __ldcs(reinterpret_cast<const uint4*>(x + token * x_stride + column));
    for (int k = 0; k < top_k; ++k) {
      const long row = token_rows[token * top_k + k];
      if (row >= 0) __stcs(reinterpret_cast<uint4*>(rows + row * width + column), value);
    }
  }
}

__device__ int expert_of_row(const int* expert_offset, int num_experts, int row) {
  int low = 0, high = num_experts - 1;  // the last expert whose first row is not after `row`
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (expert_offset[middle] <= row)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

__device__ int place_of_row(const ExpertPlan& plan, int num_experts, int row) {
  const int expert = expert_of_row(plan.expert_offset, num_experts, row);
  return plan.place_of_expert ? plan.place_of_expert[expert] : expert;
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

// After sum_parts: + <dy, bias>, a warp an assignment.
template <class Element>
__global__ void __launch_bounds__(kMaxThreads)
    add_bias_parts(ExpertShape shape, ExpertPlan plan, const int* token_rows, const Element* dy,
                   long dy_stride, const Element* bias, long bias_stride, float* dgate_weights) {
  const int assignment = blockIdx.x * (kMaxThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (assignment >= shape.num_tokens * shape.top_k) return;
  const int row = token_rows[assignment];
  if (row < 0) return;
  const long place = place_of_row(plan, shape.num_experts, row);
  if (place < 0) return;
  dy += assignment / shape.top_k * dy_stride;
  bias += place * bias_stride;
  float sum = 0.f;
  for (int column = lane * kVector; column < shape.model_width; column += 32 * kVector) {
    const Vector<Element> one = load(dy + column), other = load(bias + column);
    for (int j = 0; j < kVector; ++j) sum += one[j] * other[j];
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (lane == 0) dgate_weights[assignment] += sum;
}

__global__ void __launch_bounds__(kMaxThreads)
    mark_present(ExpertShape shape, ExpertPlan plan, const int* token_rows, int* present) {
  const int assignment = blockIdx.x * kMaxThreads + threadIdx.x;
  if (assignment >= shape.num_tokens * shape.top_k) return;
  const int row = token_rows[assignment];
  present[assignment] = row >= 0 && place_of_row(plan, shape.num_experts, row) >= 0 ? row : -1;
}

// A block: 64 columns of an expert, eight threads a row (16 bytes each), 32 rows at a time; the sums of the
// 32 are added in order at the end.
template <class Element>
__global__ void __launch_bounds__(kMaxThreads) sum_experts(ExpertShape shape, ExpertPlan plan, ExpertSum p) {
  constexpr int kRows = kMaxThreads / 8;
  __shared__ float sums[kRows][8 * kVector + 4];
  const int expert = blockIdx.y;
  const long place = plan.place_of_expert ? plan.place_of_expert[expert] : expert;
  if (place < 0) return;
  const int first = threadIdx.x / 8, within = threadIdx.x % 8 * kVector, column = blockIdx.x * 64 + within;
  float sum[kVector] = {};
  if (column < p.width)
#pragma unroll 4
    for (int row = plan.expert_offset[expert] + first; row < plan.expert_offset[expert + 1]; row += kRows) {
      const int assignment = p.by_token || p.gate_weights ? plan.row_assignment[row] : 0;
      const long from = p.by_token ? assignment / shape.top_k : row;
      const float weight = p.gate_weights ? p.gate_weights[assignment] : 1.f;
      const Vector<Element> values = load(static_cast<const Element*>(p.values) + from * p.stride + column);
      for (int j = 0; j < kVector; ++j) sum[j] += weight * values[j];
    }
  for (int i = 0; i < kVector; ++i) sums[first][within + i] = sum[i];
  __syncthreads();
  const int mine = blockIdx.x * 64 + threadIdx.x;
  if (threadIdx.x >= 64 || mine >= p.width) return;
  float total = 0.f;
  for (int i = 0; i < kRows; ++i) total += sums[i][threadIdx.x];
  if (p.out.fp32) {
    float* out = static_cast<float*>(p.out.data) + place * p.out.stride + mine;
    *out = p.out.accumulate ? *out + total : total;
  } else {
    Element* out = static_cast<Element*>(p.out.data) + place * p.out.stride + mine;
    *out = Element(p.out.accumulate ? float(*out) + total : total);
  }
}

int blocks_for(int count) { return (count + kMaxThreads - 1) / kMaxThreads; }

// Calls function with a null pointer to the element type.
template <class Function>
void with_type(DataType type, Function function) {
  switch (type) {
    case DataType::kBf16:
      return function(static_cast<__nv_bfloat16*>(nullptr));
    case DataType::kFp16:
      return function(static_cast<__half*>(nullptr));
    case DataType::kFp32:
      return function(static_cast<float*>(nullptr));
  }
}

}  // namespace

void token_sum(DataType type, const void* rows, const float* gate_weights, const int* token_rows,
               int num_tokens, int top_k, int width, void* y, bool y_fp32, cudaStream_t stream) {
  if (num_tokens == 0) return;
  const int threads = std::min(kMaxThreads, (width / kVector + 31) / 32 * 32);
  with_type(type, [&]<class Element>(Element*) {
    const Element* from = static_cast<const Element*>(rows);
    if (y_fp32)
      sum_rows<<<num_tokens, threads, 0, stream>>>(from, gate_weights, token_rows, top_k, width,
                                                   static_cast<float*>(y));
    else
      sum_rows<<<num_tokens, threads, 0, stream>>>(from, gate_weights, token_rows, top_k, width,
                                                   static_cast<Element*>(y));
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void invert_rows(const ExpertShape& shape, const int* row_assignment, int* token_rows, cudaStream_t stream) {
  if (shape.num_tokens == 0) return;
  MOTLEY_CUDA_CHECK(cudaMemsetAsync(token_rows, 0xff, sizeof(int) * shape.num_tokens * shape.top_k, stream));
  if (shape.max_rows == 0) return;
  invert<<<blocks_for(shape.max_rows), kMaxThreads, 0, stream>>>(row_assignment, shape.max_rows, token_rows);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void copy_to_rows(const ExpertShape& shape, const int* token_rows, const void* x, long x_stride, void* rows,
                  cudaStream_t stream) {
  if (shape.num_tokens == 0) return;
  with_type(shape.type, [&]<class Element>(Element*) {
    const int vectors = shape.model_width * sizeof(Element) / sizeof(uint4);
    copy_tokens<<<shape.num_tokens, std::min(kMaxThreads, (vectors + 31) / 32 * 32), 0, stream>>>(
        static_cast<const Element*>(x), x_stride, token_rows, shape.top_k, shape.model_width,
        static_cast<Element*>(rows));
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void gate_weight_sum(const ExpertShape& shape, const ExpertPlan& plan, const float* partial, int num_parts,
                     const int* token_rows, const void* dy, long dy_stride, PlacedBias down_bias,
                     float* dgate_weights, cudaStream_t stream) {
  const int count = shape.num_tokens * shape.top_k;
  if (count == 0) return;
  sum_parts<<<blocks_for(count), kMaxThreads, 0, stream>>>(partial, num_parts, shape.max_rows, token_rows,
                                                           count, dgate_weights);
  if (down_bias.data)
    with_type(shape.type, [&]<class Element>(Element*) {
      add_bias_parts<<<blocks_for(32 * count), kMaxThreads, 0, stream>>>(
          shape, plan, token_rows, static_cast<const Element*>(dy), dy_stride,
          static_cast<const Element*>(down_bias.data), down_bias.stride, dgate_weights);
    });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void present_rows(const ExpertShape& shape, const ExpertPlan& plan, const int* token_rows, int* present,
                  cudaStream_t stream) {
  const int count = shape.num_tokens * shape.top_k;
  if (count == 0) return;
  mark_present<<<blocks_for(count), kMaxThreads, 0, stream>>>(shape, plan, token_rows, present);
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void expert_sum(const ExpertShape& shape, const ExpertPlan& plan, const ExpertSum& sum, cudaStream_t stream) {
  with_type(shape.type, [&]<class Element>(Element*) {
    sum_experts<Element>
        <<<dim3((sum.width + 63) / 64, shape.num_experts), kMaxThreads, 0, stream>>>(shape, plan, sum);
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda
