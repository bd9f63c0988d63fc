#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "motley/kernels/cuda/decode_attention.h"
#include "motley/kernels/cuda/rotary.h"
#include "motley/nn/gpu.h"
#include "motley/ops/cuda_tensors.h"

namespace motley::gpu {
namespace {

using ops::current_stream;
using ops::element_of;

static_assert(sizeof(long) == sizeof(int64_t));

const long* longs(const at::Tensor& tensor) {
  return reinterpret_cast<const long*>(tensor.const_data_ptr<int64_t>());
}

// Heads of a token beside each other; tokens may lie apart (parts of one projection).
at::Tensor dense_tokens(const at::Tensor& x) {
  return x.stride(2) == 1 && x.stride(1) == x.size(2) ? x : x.contiguous();
}

}  // namespace

at::Tensor rotary(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& table, bool inverse) {
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor from = dense_tokens(x), where = positions.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  cuda::rotary(from.const_data_ptr(), element_of(x.scalar_type()), from.stride(0), longs(where),
               table.const_data_ptr<float>(), static_cast<int>(table.size(0)), static_cast<int>(x.size(0)),
               static_cast<int>(x.size(1)), static_cast<int>(x.size(2)), inverse, y.mutable_data_ptr(),
               current_stream());
  return y;
}

at::Tensor decode_attention(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in,
                            const at::Tensor& positions, const BlockCache& cache) {
  const c10::cuda::CUDAGuard guard(q_in.device());
  const at::Tensor q = q_in.contiguous(), k = dense_tokens(k_in), v = dense_tokens(v_in);
  const int num_sequences = static_cast<int>(q.size(0)), num_heads = static_cast<int>(q.size(1));
  const cuda::BlockCache layer = {.keys = cache.keys.mutable_data_ptr(),
                                  .values = cache.values.mutable_data_ptr(),
                                  .block_table = cache.block_table.const_data_ptr<int32_t>(),
                                  .table_width = static_cast<int>(cache.block_table.size(1)),
                                  .block_size = static_cast<int>(cache.keys.size(1)),
                                  .num_kv_heads = static_cast<int>(k.size(1)),
                                  .head_dim = static_cast<int>(k.size(2)),
                                  .element = element_of(q.scalar_type())};
  cuda::append_to_cache(layer, k.const_data_ptr(), k.stride(0), v.const_data_ptr(), v.stride(0),
                        longs(positions), num_sequences, current_stream());
  at::Tensor out = at::empty(q.sizes(), q.options());
  const at::Tensor workspace =
      ops::scratch(cuda::decode_attention_workspace_bytes(layer, num_sequences, num_heads), q);
  cuda::decode_attention(layer, q.const_data_ptr(), longs(positions), num_sequences, num_heads,
                         out.mutable_data_ptr(), workspace.mutable_data_ptr(), current_stream());
  return out;
}

}  // namespace motley::gpu
