// One persistent launch for the whole layer: up, activation, down and the weighted sum. Reading the weights
// is all that counts, so one thread streams them through a deep ring by TMA in the order of use and runs
// ahead of everything else; rows are so few that they come along with each piece.
//
// A task is R = 16, 32, 64 or 128 rows of an expert's weights with all of K; a stage of the ring up to 8
// sub-tiles of 16 x 64, one for each warp that multiplies: R / 16 of them down, the rest along K. R is as
// large as the number of tasks allows (finer tasks balance better; larger ones need the rows that come along
// less often, and their boxes are faster), and large enough for the rows of the fullest expert. Sums along K
// are added over the warps in their order, and those of a token over its experts in the order of its choices,
// so that nothing depends on which block does what.
#include <compare>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "motley/kernels/cuda/cuda_check.h"
#include "motley/kernels/cuda/sm90/decode_finish.cuh"
#include "motley/kernels/cuda/sm90/decode_load.cuh"

namespace motley::cuda::sm90 {
namespace {

using namespace decode;

__global__ void __launch_bounds__(kDecodeThreads, 1) decode_kernel(const __grid_constant__ Params p) {
  cudaTriggerProgrammaticLaunchCompletion();
  extern __shared__ __align__(1024) unsigned char shared_bytes[];
  Shared& shared = *reinterpret_cast<Shared*>(shared_bytes);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      Barrier::init(&shared.weights_full[i], 1);
      Barrier::init(&shared.weights_empty[i], kWarps);
    }
    for (int i = 0; i < kMaxRowStages; ++i) {
      Barrier::init(&shared.rows_full[i], 1);
      Barrier::init(&shared.rows_empty[i], 32 * kWarps);
    }
    for (int i = 0; i < kTaskSlots; ++i) {
      Barrier::init(&shared.task_full[i], 1);
      Barrier::init(&shared.task_empty[i], kWarps + 3);
      Barrier::init(&shared.task_done[i], kWarps);
    }
    for (int i = 0; i < 2; ++i) {
      Barrier::init(&shared.partial_full[i], 32 * kWarps);
      Barrier::init(&shared.partial_empty[i], 32);
    }
    cutlass::arch::fence_barrier_init();
  }
  if (warp == kWarps && lane < 2 * kSplits) {
    const WeightMaps& maps = lane < kSplits ? p.up : p.down;
    const int depth = lane < kSplits ? p.model_width : p.expert_width;
    cute::prefetch_tma_descriptor(depth % 64 == 0 ? &maps.whole[lane % kSplits] : &maps.pieces);
  }
  // Made while other launches end, for a token whose experts are all here; rarely so for several.
  const PlanSize likely{p.plan.num_assignments, 1, true};
  TaskList tasks(p, shared.plan, likely);
  cudaGridDependencySynchronize();  // nothing before reads or writes what others do
  unsigned asked = 0;               // is answered while the plan is made
  if (warp == kWarps && lane == 0) asked = ask(*p.counters);
  make_decode_plan(p.plan, shared.plan);
  if (shared.plan.size != likely) tasks = TaskList(p, shared.plan, shared.plan.size);
  if (warp == kWarps) {
    if (lane == 0) WeightLoader(p, shared, tasks).run(asked);
  } else if (warp == kWarps + 1) {
    load_rows(p, shared, tasks, lane);
  } else if (warp == kWarps + 2) {
    announce(p, shared, tasks, lane);
  } else if (warp == kWarps + 3) {
    finish(p, shared, tasks, lane);
  } else {
    if (p.zero_experts.num_constant > 0) mix_constants(p, lane);
    switch (tasks.token_tiles) {
      case 1:
        return multiply<1>(p, shared, tasks, warp, lane);
      case 2:
        return multiply<2>(p, shared, tasks, warp, lane);
      case 4:
        return multiply<4>(p, shared, tasks, warp, lane);
      default:
        multiply<8>(p, shared, tasks, warp, lane);
    }
  }
}

constexpr int kCounterSets = 4096;
__device__ DecodeCounters counter_sets[kCounterSets];

// Launches that may run at the same time need counters of their own: those of different streams, and of
// different captures, whose graphs may be launched in any stream. A set is given back with the last of its
// graphs. The counters are memory of the device that outlives every launch, hence one object for the process;
// it is never destroyed, because graphs may be so later.
class CounterSets {
 public:
  static CounterSets& instance() {
    static CounterSets* sets = new CounterSets;
    return *sets;
  }

  // Hold it until the launch is queued.
  struct Lease {
    DecodeCounters* counters;
    std::unique_lock<std::mutex> lock;
  };
  Lease take(int device, cudaStream_t stream) {
    cudaStreamCaptureStatus status;
    unsigned long long capture = 0, id = 0;
    cudaGraph_t graph = nullptr;
    MOTLEY_CUDA_CHECK(cudaStreamGetCaptureInfo(stream, &status, &capture, &graph));
    const bool captured = status == cudaStreamCaptureStatusActive;
    if (captured)
      id = reinterpret_cast<uintptr_t>(stream);  // the id is not to be had in a capture
    else
      MOTLEY_CUDA_CHECK(cudaStreamGetId(stream, &id));
    const Key key{device, captured ? capture : 0, id};
    std::unique_lock lock(mutex_);
    auto set = set_of_.find(key);
    if (set == set_of_.end()) {
      if (free_.empty() && !captured) take_back_streams(device);
      if (free_.empty())
        throw std::runtime_error("[expert_decode] expected at most " + std::to_string(kCounterSets) +
                                 " streams and captured graphs at a time");
      if (captured) give_back_with(graph, key);
      set = set_of_.emplace(key, free_.back()).first;
      free_.pop_back();
    }
    DecodeCounters* sets = nullptr;
    MOTLEY_CUDA_CHECK(cudaGetSymbolAddress(reinterpret_cast<void**>(&sets), counter_sets));
    return {sets + set->second, std::move(lock)};
  }

 private:
  struct Key {
    int device;
    unsigned long long capture, stream;  // capture: 0 for launches without one
    auto operator<=>(const Key&) const = default;
  };

  CounterSets() : free_(kCounterSets) { std::iota(free_.begin(), free_.end(), 0); }

  void give_back(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto set = set_of_.find(key);
    if (set == set_of_.end()) return;
    free_.push_back(set->second);
    set_of_.erase(set);
  }
  static void give_back_with(cudaGraph_t graph, const Key& key) {
    const auto destroyed = [](void* owned) {
      const std::unique_ptr<Key> key(static_cast<Key*>(owned));
      instance().give_back(*key);
    };
    auto owned = std::make_unique<Key>(key);
    cudaUserObject_t object;
    MOTLEY_CUDA_CHECK(
        cudaUserObjectCreate(&object, owned.get(), destroyed, 1, cudaUserObjectNoDestructorSync));
    owned.release();
    MOTLEY_CUDA_CHECK(cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove));
  }
  // Nobody says when a stream ends, but what is queued does, and nothing is queued meanwhile.
  void take_back_streams(int device) {
    MOTLEY_CUDA_CHECK(cudaDeviceSynchronize());
    std::erase_if(set_of_, [&](const auto& set) {
      const bool ended = set.first.device == device && set.first.capture == 0;
      if (ended) free_.push_back(set.second);
      return ended;
    });
  }

  std::mutex mutex_;
  std::map<Key, int> set_of_;
  std::vector<int> free_;
};

WeightMaps make_weight_maps(PlacedWeights weights, int num_places, int halves, int rows, int depth) {
  WeightMaps maps{};
  for (int i = 0, groups = 1; depth % 64 == 0 && i < kSplits; ++i, groups *= 2)
    maps.whole[i] = make_tensor_map(weights.data, {64, rows, halves, depth / 64, num_places},
                                    {depth, long(rows) * depth, 64, weights.stride},
                                    {64, 16 * groups / halves, halves, stage_depth(depth, i) / 64, 1});
  maps.pieces = make_tensor_map(weights.data, {depth, rows, halves, 1, num_places},
                                {depth, long(rows) * depth, 64, weights.stride}, {64, 8, 1, 1, 1});
  return maps;
}

void make_splits(Split (&splits)[kSplits], int rows, int depth) {
  for (int i = 0; i < kSplits; ++i) {
    Split& split = splits[i];
    split.depth = depth;
    split.log_groups = i;
    split.tiles = (rows + split.rows() - 1) / split.rows();
    split.by_tiles = Divisor(split.tiles);
    split.stage_depth = stage_depth(depth, i);
    split.stages = (depth + split.stage_depth - 1) / split.stage_depth;
  }
}

}  // namespace

void expert_decode(const ExpertLayer& layer, const Decode& decode, cudaStream_t stream) {
  const ExpertShape& shape = layer.shape;
  const int hidden_width = layer.activation.hidden_width(shape.expert_width);
  Params p{};
  const int halves = layer.activation.gated() ? 2 : 1;
  p.up = make_weight_maps(layer.gate_up, shape.num_places, halves, hidden_width / halves, shape.model_width);
  p.down = make_weight_maps(layer.down, shape.num_places, 1, shape.model_width, shape.expert_width);
  make_splits(p.up_splits, hidden_width, shape.model_width);
  make_splits(p.down_splits, shape.model_width, shape.expert_width);
  p.plan = {decode.slots,
            layer.plan.row_assignment,
            layer.plan.expert_offset,
            layer.plan.place_of_expert,
            shape.num_experts,
            shape.num_tokens * shape.top_k,
            shape.top_k,
            Divisor(shape.top_k)};
  p.x = static_cast<const bf16*>(decode.x);
  p.x_stride = decode.x_stride;
  p.up_bias = static_cast<const bf16*>(layer.gate_up_bias.data);
  p.up_bias_stride = layer.gate_up_bias.stride;
  p.down_bias = static_cast<const bf16*>(layer.down_bias.data);
  p.down_bias_stride = layer.down_bias.stride;
  p.gate_weights = decode.gate_weights;
  p.activation = layer.activation;
  p.activated = static_cast<bf16*>(decode.activated);
  p.rows = static_cast<bf16*>(decode.rows);
  p.y = decode.y;
  p.y_fp32 = decode.y_fp32;
  p.num_tokens = shape.num_tokens;
  p.top_k = shape.top_k;
  p.model_width = shape.model_width;
  p.expert_width = shape.expert_width;
  if (decode.zero_experts) p.zero_experts = *decode.zero_experts;
  p.mixes = reinterpret_cast<float2*>(decode.mixes);

  int device = 0, num_sms = 0;
  MOTLEY_CUDA_CHECK(cudaGetDevice(&device));
  const CounterSets::Lease lease = CounterSets::instance().take(device, stream);
  p.counters = lease.counters;
  MOTLEY_CUDA_CHECK(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device));
  p.by_blocks = Divisor(num_sms);
  MOTLEY_CUDA_CHECK(cudaFuncSetAttribute(decode_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(sizeof(Shared))));
  cudaLaunchConfig_t config{};
  config.gridDim = num_sms;
  config.blockDim = kDecodeThreads;
  config.dynamicSmemBytes = sizeof(Shared);
  config.stream = stream;
  cudaLaunchAttribute attribute;  // blocks may start while those of the kernel before end
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  MOTLEY_CUDA_CHECK(cudaLaunchKernelEx(&config, decode_kernel, p));
}

}  // namespace motley::cuda::sm90
