#include "motley/kernels/cuda/plain/products.h"

#include "motley/kernels/cuda/cuda_check.h"

namespace motley::cuda::plain {
namespace {

constexpr int kTile = 64;  // rows and columns of a block's tile
constexpr int kDepth = 16;
constexpr int kThreads = 256;
constexpr int kPerThread = 4;  // rows and columns of a thread
constexpr int kParts = kTileRows / kTile;
constexpr int kSumColumns = 32, kSumLanes = 8;

template <class T>
__device__ float load_row(const Rows& rows, int row, int column) {
  const long from = rows.row_assignment ? rows.row_assignment[row] / rows.top_k : row;
  return to_float(static_cast<const T*>(rows.data)[from * rows.stride + column]);
}

template <class T>
__device__ void store(T* to, float value, bool accumulate) {
  *to = from_float<T>(accumulate ? to_float(*to) + value : value);
}

// c[i][j] += a[row][k] b[k][column] over one step of kDepth; both in shared memory, [kDepth][kTile].
__device__ void multiply_step(const float (&a)[kDepth][kTile + 1], const float (&b)[kDepth][kTile + 1], int i,
                              int j, float (&c)[kPerThread][kPerThread]) {
#pragma unroll
  for (int k = 0; k < kDepth; ++k) {
    float x[kPerThread], y[kPerThread];
    for (int p = 0; p < kPerThread; ++p) x[p] = a[k][i + p * (kTile / kPerThread)];
    for (int p = 0; p < kPerThread; ++p) y[p] = b[k][j + p * (kTile / kPerThread)];
    for (int p = 0; p < kPerThread; ++p)
      for (int q = 0; q < kPerThread; ++q) c[p][q] = fmaf(x[p], y[q], c[p][q]);
  }
}

template <class In, class Out>
__global__ void __launch_bounds__(kThreads)
    multiply_rows(Rows rows, int depth, Weights weights, int columns, TileSchedule schedule, Out* out) {
  __shared__ float a[kDepth][kTile + 1], b[kDepth][kTile + 1];
  const int tile_index = blockIdx.x / kParts;
  if (tile_index >= *schedule.num_tiles) return;
  const RowTile tile = schedule.tiles[tile_index];
  const int first_row = tile.row_begin + blockIdx.x % kParts * kTile, first_column = blockIdx.y * kTile;
  if (first_row >= tile.row_end) return;
  const In* weight = static_cast<const In*>(weights.data) + tile.place * weights.place_stride;
  const int i = threadIdx.x / (kTile / kPerThread), j = threadIdx.x % (kTile / kPerThread);
  float c[kPerThread][kPerThread] = {};
  for (int k = 0; k < depth; k += kDepth) {
    for (int e = threadIdx.x; e < kDepth * kTile; e += kThreads) {
      const int at = e % kDepth, other = e / kDepth, row = first_row + other, column = first_column + other;
      a[at][other] = k + at < depth && row < tile.row_end ? load_row<In>(rows, row, k + at) : 0.f;
      b[at][other] = k + at < depth && column < columns
                         ? to_float(weight[(k + at) * weights.depth_stride + column * weights.column_stride])
                         : 0.f;
    }
    __syncthreads();
    multiply_step(a, b, i, j, c);
    __syncthreads();
  }
  const In* bias = weights.bias ? static_cast<const In*>(weights.bias) + (long)tile.place * columns : nullptr;
  for (int p = 0; p < kPerThread; ++p) {
    const int row = first_row + i + p * (kTile / kPerThread);
    if (row >= tile.row_end) continue;
    for (int q = 0; q < kPerThread; ++q) {
      const int column = first_column + j + q * (kTile / kPerThread);
      if (column < columns)
        out[(long)row * columns + column] = from_float<Out>(c[p][q] + (bias ? to_float(bias[column]) : 0.f));
    }
  }
}

__device__ int place_of(const Places& places, int expert) {
  return places.place_of_expert ? places.place_of_expert[expert] : expert;
}

template <class In, class Out>
__global__ void __launch_bounds__(kThreads)
    outer_rows(Rows rows_a, int width_a, Rows rows_b, int width_b, Places places, Out* out, bool accumulate) {
  __shared__ float a[kDepth][kTile + 1], b[kDepth][kTile + 1];
  const int expert = blockIdx.z, place = place_of(places, expert);
  if (place < 0) return;
  const int begin = places.expert_offset[expert], end = places.expert_offset[expert + 1];
  const int first_m = blockIdx.x * kTile, first_n = blockIdx.y * kTile;
  const int i = threadIdx.x / (kTile / kPerThread), j = threadIdx.x % (kTile / kPerThread);
  float c[kPerThread][kPerThread] = {};
  for (int row = begin; row < end; row += kDepth) {
    for (int e = threadIdx.x; e < kDepth * kTile; e += kThreads) {
      const int at = e / kTile, other = e % kTile, r = row + at;
      a[at][other] = r < end && first_m + other < width_a ? load_row<In>(rows_a, r, first_m + other) : 0.f;
      b[at][other] = r < end && first_n + other < width_b ? load_row<In>(rows_b, r, first_n + other) : 0.f;
    }
    __syncthreads();
    multiply_step(a, b, i, j, c);
    __syncthreads();
  }
  for (int p = 0; p < kPerThread; ++p) {
    const int m = first_m + i + p * (kTile / kPerThread);
    if (m >= width_a) continue;
    for (int q = 0; q < kPerThread; ++q) {
      const int n = first_n + j + q * (kTile / kPerThread);
      if (n < width_b) store(out + ((long)place * width_a + m) * width_b + n, c[p][q], accumulate);
    }
  }
}

// kSumLanes sums of every kSumLanes-th row, then these in order.
template <class In, class Out>
__global__ void __launch_bounds__(kSumColumns* kSumLanes)
    sum_columns(Rows rows, int width, const float* gate_weights, const int* row_assignment, Places places,
                Out* out, bool accumulate) {
  __shared__ float sums[kSumLanes][kSumColumns];
  const int expert = blockIdx.y, place = place_of(places, expert);
  if (place < 0) return;
  const int column = blockIdx.x * kSumColumns + threadIdx.x;
  const int end = places.expert_offset[expert + 1];
  float sum = 0.f;
  if (column < width)
    for (int row = places.expert_offset[expert] + threadIdx.y; row < end; row += kSumLanes)
      sum += (gate_weights ? gate_weights[row_assignment[row]] : 1.f) * load_row<In>(rows, row, column);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  for (int lane = 1; lane < kSumLanes; ++lane) sum += sums[lane][threadIdx.x];
  store(out + (long)place * width + column, sum, accumulate);
}

unsigned tiles_of(int size) { return (size + kTile - 1) / kTile; }

// Calls function.template operator()<In, Out>().
template <class Function>
void with_elements(Element in, Element out, Function function) {
  with_element(in, [&]<class In>() {
    if (out == Element::kFloat32)
      function.template operator()<In, float>();
    else if (out == in)
      function.template operator()<In, In>();
    else
      throw std::invalid_argument("[cuda] expected an output of the input's element type or of fp32");
  });
}

}  // namespace

void multiply(const Rows& rows, int depth, const Weights& weights, int columns, const TileSchedule& schedule,
              int max_tiles, const Output& out, cudaStream_t stream) {
  if (columns == 0 || max_tiles == 0) return;
  const dim3 grid(max_tiles * kParts, tiles_of(columns));
  with_elements(rows.element, out.element, [&]<class In, class Out>() {
    multiply_rows<In, Out>
        <<<grid, kThreads, 0, stream>>>(rows, depth, weights, columns, schedule, static_cast<Out*>(out.data));
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void outer(const Rows& a, int width_a, const Rows& b, int width_b, const Places& places, const Output& out,
           bool accumulate, cudaStream_t stream) {
  if (width_a == 0 || width_b == 0 || places.num_experts == 0) return;
  const dim3 grid(tiles_of(width_a), tiles_of(width_b), places.num_experts);
  with_elements(a.element, out.element, [&]<class In, class Out>() {
    outer_rows<In, Out><<<grid, kThreads, 0, stream>>>(a, width_a, b, width_b, places,
                                                       static_cast<Out*>(out.data), accumulate);
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

void column_sums(const Rows& a, int width, const float* gate_weights, const int* row_assignment,
                 const Places& places, const Output& out, bool accumulate, cudaStream_t stream) {
  if (width == 0 || places.num_experts == 0) return;
  const dim3 grid((width + kSumColumns - 1) / kSumColumns, places.num_experts);
  with_elements(a.element, out.element, [&]<class In, class Out>() {
    sum_columns<In, Out><<<grid, dim3(kSumColumns, kSumLanes), 0, stream>>>(
        a, width, gate_weights, row_assignment, places, static_cast<Out*>(out.data), accumulate);
  });
  MOTLEY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace motley::cuda::plain
