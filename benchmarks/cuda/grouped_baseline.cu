#include "benchmarks/cuda/grouped_baseline.h"

#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/group_array_problem_shape.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include <stdexcept>
#include <string>
#include <vector>

#include "motley/kernels/cuda/activation.h"
#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/token_sum.h"

namespace motley::cuda::baseline {
namespace {

using bf16 = __nv_bfloat16;
using Element = cutlass::bfloat16_t;
using Row = cutlass::layout::RowMajor;
using Column = cutlass::layout::ColumnMajor;

template <class T>
class Device {
 public:
  explicit Device(size_t count) { MOTLEY_CUDA_CHECK(cudaMalloc(&data_, count * sizeof(T) + 16)); }
  explicit Device(const std::vector<T>& host) : Device(host.size()) {
    MOTLEY_CUDA_CHECK(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { cudaFree(data_); }
  T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

// The element distance from one expert's part of an operand to the next's: per row, or per expert.
struct Operand {
  const bf16* data;
  long per_row, per_expert;
  __device__ const bf16* of(int expert, int first_row) const {
    return data + per_row * first_row + per_expert * expert;
  }
};

using ProblemSize = cute::Shape<int, int, int>;

// Sizes and addresses of one product per expert, from the plan. m or k 0: the expert's number of rows.
__global__ void set_problems(const int* expert_offset, int num_experts, int m, int n, int k, Operand a,
                             Operand b, Operand d, ProblemSize* sizes, const Element** at_a,
                             const Element** at_b, Element** at_d) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= num_experts) return;
  const int first = expert_offset[e], rows = expert_offset[e + 1] - first;
  sizes[e] = cute::make_shape(m ? m : rows, n, k ? k : rows);
  at_a[e] = reinterpret_cast<const Element*>(a.of(e, first));
  at_b[e] = reinterpret_cast<const Element*>(b.of(e, first));
  at_d[e] = reinterpret_cast<Element*>(const_cast<bf16*>(d.of(e, first)));
}

// Tiles of 128 x 256 on two cooperating warp groups, B shared by clusters of two: the best of CUTLASS's
// choices for such products.
struct Tiles {
  using Block = cute::Shape<cute::_128, cute::_256, cute::_64>;
  using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;
};

// D = A B for every expert: A [M, K] and B [K, N] in the layouts given, D row-major.
template <class LayoutA, class LayoutB, class Tile = Tiles>
class GroupedProduct {
  using TileShape = typename Tile::Block;
  using ClusterShape = typename Tile::Cluster;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, TileShape, ClusterShape,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, Row*, 8, Element, Row*, 8,
      cutlass::epilogue::PtrArrayTmaWarpSpecializedCooperative>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, LayoutA*, 8, Element, LayoutB*, 8, float,
      TileShape, ClusterShape,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      cutlass::gemm::KernelPtrArrayTmaWarpSpecializedCooperative>::CollectiveOp;
  using Kernel =
      cutlass::gemm::kernel::GemmUniversal<cutlass::gemm::GroupProblemShape<ProblemSize>, Mainloop, Epilogue>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;
  using StrideA = typename Kernel::InternalStrideA;
  using StrideB = typename Kernel::InternalStrideB;
  using StrideD = typename Kernel::InternalStrideD;

 public:
  GroupedProduct(const int* expert_offset, int num_experts, int m, int n, int k, Operand a, long a_line,
                 Operand b, long b_line, Operand d)
      : expert_offset_(expert_offset),
        num_experts_(num_experts),
        m_(m),
        n_(n),
        k_(k),
        a_(a),
        b_(b),
        d_(d),
        sizes_(num_experts),
        at_a_(num_experts),
        at_b_(num_experts),
        at_d_(num_experts),
        stride_a_(std::vector<StrideA>(num_experts, stride<StrideA>(a_line))),
        stride_b_(std::vector<StrideB>(num_experts, stride<StrideB>(b_line))),
        stride_d_(std::vector<StrideD>(num_experts, stride<StrideD>(n))) {
    const auto hardware = cutlass::KernelHardwareInfo::make_kernel_hardware_info<Kernel>(0);
    typename Gemm::Arguments arguments{cutlass::gemm::GemmUniversalMode::kGrouped,
                                       {num_experts, sizes_.get(), nullptr},
                                       {at_a_.get(), stride_a_.get(), at_b_.get(), stride_b_.get()},
                                       {{}, nullptr, nullptr, at_d_.get(), stride_d_.get()},
                                       hardware};
    arguments.epilogue.thread.alpha = 1;
    arguments.epilogue.thread.beta = 0;
    workspace_ = std::make_unique<Device<char>>(Gemm::get_workspace_size(arguments));
    check(Gemm::can_implement(arguments), "can_implement");
    check(gemm_.initialize(arguments, workspace_->get()), "initialize");
  }

  void run(cudaStream_t stream) {
    set_problems<<<(num_experts_ + 127) / 128, 128, 0, stream>>>(expert_offset_, num_experts_, m_, n_, k_, a_,
                                                                 b_, d_, sizes_.get(), at_a_.get(),
                                                                 at_b_.get(), at_d_.get());
    MOTLEY_CUDA_CHECK(cudaGetLastError());
    check(gemm_.run(stream), "run");
  }

 private:
  static void check(cutlass::Status status, const char* call) {
    if (status != cutlass::Status::kSuccess)
      throw std::runtime_error(std::string("[grouped baseline] CUTLASS: ") + call + ": " +
                               cutlass::cutlassGetStatusString(status));
  }
  // The one dimension that is not contiguous.
  template <class Stride>
  static Stride stride(long line) {
    Stride stride{};
    if constexpr (cute::is_static<cute::tuple_element_t<0, Stride>>::value)
      cute::get<1>(stride) = line;
    else
      cute::get<0>(stride) = line;
    return stride;
  }

  const int* expert_offset_;
  int num_experts_, m_, n_, k_;
  Operand a_, b_, d_;
  Device<ProblemSize> sizes_;
  Device<const Element*> at_a_, at_b_;
  Device<Element*> at_d_;
  Device<StrideA> stride_a_;
  Device<StrideB> stride_b_;
  Device<StrideD> stride_d_;
  std::unique_ptr<Device<char>> workspace_;
  Gemm gemm_;
};

constexpr int kThreads = 256;

__device__ float2 unpack(uint32_t bits) {
  return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
}
__device__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}

// One block a row, 16 bytes a thread.
__global__ void gather_rows(const bf16* from, const int* row_assignment, int top_k, int width, bf16* to) {
  const long row = blockIdx.x;
  const int assignment = row_assignment[row];
  if (assignment < 0) return;
  const uint4* source = reinterpret_cast<const uint4*>(from + long(assignment / top_k) * width);
  for (int i = threadIdx.x; i < width / 8; i += kThreads)
    reinterpret_cast<uint4*>(to + row * width)[i] = source[i];
}

__global__ void activate_rows(const bf16* hidden, int width, bf16* activated) {
  const long row = blockIdx.x;
  const uint4* gate = reinterpret_cast<const uint4*>(hidden + row * 2 * width);
  const uint4* up = gate + width / 8;
  for (int i = threadIdx.x; i < width / 8; i += kThreads) {
    const uint4 g = gate[i], u = up[i];
    uint4 out;
    for (int j = 0; j < 4; ++j) {
      const float2 a = unpack((&g.x)[j]), b = unpack((&u.x)[j]);
      (&out.x)[j] = pack(activate<ActivationKind::kSwiGlu>({}, a.x, b.x),
                         activate<ActivationKind::kSwiGlu>({}, a.y, b.y));
    }
    reinterpret_cast<uint4*>(activated + row * width)[i] = out;
  }
}

// From dA' = dy W_down: the gradient of hidden, w A, and the gate weight's gradient.
__global__ void activate_rows_backward(const bf16* hidden, const bf16* da, const float* gate_weights,
                                       const int* row_assignment, int width, bf16* dhidden, bf16* weighted,
                                       float* dgate_weights) {
  __shared__ float sums[kThreads / 32];
  const long row = blockIdx.x;
  const int assignment = row_assignment[row];
  if (assignment < 0) return;
  const float weight = gate_weights[assignment];
  const uint4* gate = reinterpret_cast<const uint4*>(hidden + row * 2 * width);
  uint4* dgate = reinterpret_cast<uint4*>(dhidden + row * 2 * width);
  float sum = 0;
  for (int i = threadIdx.x; i < width / 8; i += kThreads) {
    const uint4 g = gate[i], u = gate[i + width / 8], d = reinterpret_cast<const uint4*>(da + row * width)[i];
    uint4 dg, du, w;
    for (int j = 0; j < 4; ++j) {
      const float2 gv = unpack((&g.x)[j]), uv = unpack((&u.x)[j]), dv = unpack((&d.x)[j]);
      const auto low = activate_with_gradient<ActivationKind::kSwiGlu>({}, gv.x, uv.x);
      const auto high = activate_with_gradient<ActivationKind::kSwiGlu>({}, gv.y, uv.y);
      sum += dv.x * low.value + dv.y * high.value;
      (&dg.x)[j] = pack(weight * dv.x * low.dg, weight * dv.y * high.dg);
      (&du.x)[j] = pack(weight * dv.x * low.du, weight * dv.y * high.du);
      (&w.x)[j] = pack(weight * low.value, weight * high.value);
    }
    dgate[i] = dg;
    dgate[i + width / 8] = du;
    reinterpret_cast<uint4*>(weighted + row * width)[i] = w;
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < kThreads / 32; ++warp) sum += sums[warp];
  dgate_weights[assignment] = sum;
}

}  // namespace

// Scratch: the one buffer N x D (gathered rows, output rows), activated or its gradient N x F, dhidden.
struct Layer::Parts {
  Problem p;
  Results r;
  long D, F, N;
  Device<bf16> gathered, rows, activated, weighted, dhidden;
  GroupedProduct<Row, Column> up, down;
  GroupedProduct<Row, Row> dactivated, dx;
  GroupedProduct<Column, Row> ddown, dgate_up;

  Parts(const Problem& problem, const Results& results)
      : p(problem),
        r(results),
        D(p.model_width),
        F(p.expert_width),
        N(long(p.num_tokens) * p.top_k),
        gathered(N * D),
        rows(N * D),
        activated(N * F),
        weighted(N * F),
        dhidden(N * 2 * F),
        up(p.expert_offset, p.num_experts, 0, 2 * F, D, {gathered.get(), D, 0}, D, {p.gate_up, 0, 2 * F * D},
           D, {r.hidden, 2 * F, 0}),
        down(p.expert_offset, p.num_experts, 0, D, F, {activated.get(), F, 0}, F, {p.down, 0, D * F}, F,
             {rows.get(), D, 0}),
        dactivated(p.expert_offset, p.num_experts, 0, F, D, {gathered.get(), D, 0}, D, {p.down, 0, D * F}, F,
                   {activated.get(), F, 0}),
        dx(p.expert_offset, p.num_experts, 0, D, 2 * F, {dhidden.get(), 2 * F, 0}, 2 * F,
           {p.gate_up, 0, 2 * F * D}, D, {rows.get(), D, 0}),
        ddown(p.expert_offset, p.num_experts, D, F, 0, {gathered.get(), D, 0}, D, {weighted.get(), F, 0}, F,
              {r.ddown, 0, D * F}),
        dgate_up(p.expert_offset, p.num_experts, 2 * F, D, 0, {dhidden.get(), 2 * F, 0}, 2 * F,
                 {gathered.get(), D, 0}, D, {r.dgate_up, 0, 2 * F * D}) {}

  void gather(const bf16* from, cudaStream_t stream) {
    gather_rows<<<N, kThreads, 0, stream>>>(from, p.row_assignment, p.top_k, D, gathered.get());
    MOTLEY_CUDA_CHECK(cudaGetLastError());
  }
  void activate(cudaStream_t stream) {
    activate_rows<<<N, kThreads, 0, stream>>>(r.hidden, F, activated.get());
    MOTLEY_CUDA_CHECK(cudaGetLastError());
  }
  void activate_backward(cudaStream_t stream) {
    activate_rows_backward<<<N, kThreads, 0, stream>>>(r.hidden, activated.get(), p.gate_weights,
                                                       p.row_assignment, F, dhidden.get(), weighted.get(),
                                                       r.dgate_weights);
    MOTLEY_CUDA_CHECK(cudaGetLastError());
  }
  void sum(const float* gate_weights, bf16* to, cudaStream_t stream) {
    token_sum(DataType::kBf16, rows.get(), gate_weights, p.token_rows, p.num_tokens, p.top_k, D, to, false,
              stream);
  }
};

Layer::Layer(const Problem& problem, const Results& results)
    : parts_(std::make_unique<Parts>(problem, results)) {
  Parts& parts = *parts_;
  const auto product = [](const char* name, double units, auto& grouped) {
    return Step{name, units, [&grouped](cudaStream_t stream) { grouped.run(stream); }};
  };
  const auto gather = [&](const char* name, const bf16* from) {
    return Step{name, 0, [&parts, from](cudaStream_t stream) { parts.gather(from, stream); }};
  };
  const auto sum = [&](const char* name, const float* gate_weights, bf16* to) {
    return Step{name, 0,
                [&parts, gate_weights, to](cudaStream_t stream) { parts.sum(gate_weights, to, stream); }};
  };
  forward_ = {gather("gather x", problem.x),
              product("up", 2, parts.up),
              {"activate", 0, [&parts](cudaStream_t stream) { parts.activate(stream); }},
              product("down", 1, parts.down),
              sum("sum", problem.gate_weights, results.y)};
  backward_ = {gather("gather dy", problem.dy),
               product("dactivated", 1, parts.dactivated),
               {"activate", 0, [&parts](cudaStream_t stream) { parts.activate_backward(stream); }},
               product("dx", 2, parts.dx),
               sum("sum", nullptr, results.dx),
               product("ddown", 1, parts.ddown),
               gather("gather x", problem.x),
               product("dgate_up", 2, parts.dgate_up)};
}
Layer::~Layer() = default;

}  // namespace motley::cuda::baseline
