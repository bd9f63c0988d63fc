#include "motley/kernels/cuda/plain/activation.h"

#include <algorithm>

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda::plain {
namespace {

constexpr int kThreads = 128;
constexpr int kMaxBlocks = 4096;

// The branch on the activation is taken for every element: plain, not fast.
__device__ ActivationGradient evaluate(const Activation& activation, float g, float u) {
  ActivationGradient result;
  with_kind(activation.kind,
            [&]<ActivationKind kind>() { result = activate_with_gradient<kind>(activation, g, u); });
  return result;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    activate_rows(Activation activation, const T* hidden, int width, const int* num_rows, T* activated) {
  const bool gated = activation.gated();
  for (long row = blockIdx.x; row < *num_rows; row += gridDim.x) {
    const T* h = hidden + row * (gated ? 2 : 1) * width;
    for (int f = threadIdx.x; f < width; f += kThreads)
      activated[row * width + f] =
          from_float<T>(evaluate(activation, to_float(h[f]), gated ? to_float(h[width + f]) : 0.f).value);
  }
}

// The sum over the block, in a fixed order, in thread 0.
__device__ float block_sum(float value) {
  __shared__ float sums[kThreads / 32];
  for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.f;
  if (threadIdx.x == 0)
    for (const float part : sums) sum += part;
  __syncthreads();
  return sum;
}

__device__ int expert_of(const int* expert_offset, int num_experts, int row) {
  int low = 0, high = num_experts - 1;  // the first expert that ends after the row
  while (low < high) {
    const int middle = (low + high) / 2;
    if (expert_offset[middle + 1] > row)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    activate_rows_backward(Activation activation, RowsGradient p, Places places) {
  const bool gated = activation.gated();
  const int width = p.expert_width, hidden_width = gated ? 2 * width : width;
  const int num_rows = places.expert_offset[places.num_experts];
  for (int row = blockIdx.x; row < num_rows; row += gridDim.x) {
    const int expert = expert_of(places.expert_offset, places.num_experts, row);
    const int place = places.place_of_expert ? places.place_of_expert[expert] : expert;
    if (place < 0) continue;
    const int assignment = p.row_assignment[row];
    const float gate_weight = p.gate_weights[assignment];
    const T* h = static_cast<const T*>(p.hidden) + (long)row * hidden_width;
    T* dh = static_cast<T*>(p.dhidden) + (long)row * hidden_width;
    const float* da = p.dactivated + (long)row * width;
    float sum = 0.f;
    for (int f = threadIdx.x; f < width; f += kThreads) {
      const ActivationGradient at =
          evaluate(activation, to_float(h[f]), gated ? to_float(h[width + f]) : 0.f);
      sum += da[f] * at.value;
      static_cast<T*>(p.activated)[(long)row * width + f] = from_float<T>(gate_weight * at.value);
      dh[f] = from_float<T>(gate_weight * da[f] * at.dg);
      if (gated) dh[width + f] = from_float<T>(gate_weight * da[f] * at.du);
    }
    if (p.down_bias) {
      const T* bias = static_cast<const T*>(p.down_bias) + (long)place * p.model_width;
      const T* dy = static_cast<const T*>(p.dy.data) + (long)(assignment / p.dy.top_k) * p.dy.stride;
      for (int d = threadIdx.x; d < p.model_width; d += kThreads) sum += to_float(dy[d]) * to_float(bias[d]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) p.dgate_weights[assignment] = sum;
  }
}

template <class In, class Out>
__global__ void __launch_bounds__(kThreads)
    sum_choices(const In* rows, const float* gate_weights, const int* token_rows, int num_tokens, int top_k,
                int width, Out* y) {
  for (long token = blockIdx.x; token < num_tokens; token += gridDim.x) {
    const int* mine = token_rows + token * top_k;
    for (int column = threadIdx.x; column < width; column += kThreads) {
      float sum = 0.f;
      for (int k = 0; k < top_k; ++k)
        if (mine[k] >= 0)
          sum += (gate_weights ? gate_weights[token * top_k + k] : 1.f) *
                 to_float(rows[(long)mine[k] * width + column]);
      y[token * width + column] = from_float<Out>(sum);
    }
  }
}

}  // namespace

void activate(const Activation& activation, const void* hidden, Element element, int expert_width,
              const int* expert_offset, int num_experts, int max_rows, void* activated, cudaStream_t stream) {
  if (max_rows == 0 || expert_width == 0) return;
  with_element(element, [&]<class T>() {
    activate_rows<T><<<std::min(max_rows, kMaxBlocks), kThreads, 0, stream>>>(
        activation, static_cast<const T*>(hidden), expert_width, expert_offset + num_experts,
        static_cast<T*>(activated));
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void activate_backward(const Activation& activation, Element element, const RowsGradient& gradient,
                       const Places& places, int max_rows, cudaStream_t stream) {
  if (max_rows == 0 || places.num_experts == 0) return;
  with_element(element, [&]<class T>() {
    activate_rows_backward<T>
        <<<std::min(max_rows, kMaxBlocks), kThreads, 0, stream>>>(activation, gradient, places);
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void token_sum(const void* rows, Element element, const float* gate_weights, const int* token_rows,
               int num_tokens, int top_k, int width, const Output& y, cudaStream_t stream) {
  if (num_tokens == 0 || width == 0) return;
  const int blocks = std::min(num_tokens, kMaxBlocks);
  with_element(element, [&]<class In>() {
    const auto launch = [&]<class Out>(Out* out) {
      sum_choices<In, Out><<<blocks, kThreads, 0, stream>>>(static_cast<const In*>(rows), gate_weights,
                                                            token_rows, num_tokens, top_k, width, out);
    };
    if (y.element == Element::kFloat32)
      launch(static_cast<float*>(y.data));
    else if (y.element == element)
      launch(static_cast<In*>(y.data));
    else if (element == Element::kFloat32 && y.element == Element::kBFloat16)
      launch(static_cast<__nv_bfloat16*>(y.data));
    else if (element == Element::kFloat32 && y.element == Element::kFloat16)
      launch(static_cast<__half*>(y.data));
    else
      throw std::invalid_argument("[cuda] expected sums of the rows' element type or of fp32");
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda::plain
