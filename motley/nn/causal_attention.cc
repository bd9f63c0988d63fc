#include "motley/nn/causal_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>

#include "motley/kernels/cpu/families.h"
#include "motley/nn/attention_kernels.h"

namespace motley {
namespace {

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
           const std::vector<int64_t>& offsets) {
  TORCH_CHECK(
      q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && k.size(0) == q.size(0) &&
          k.size(2) == q.size(2) && q.size(2) > 0 && k.size(1) > 0 && q.size(1) % k.size(1) == 0,
      "[causal_attention] expected q [T, H, hd] and k, v [T, H_kv, hd] with H a multiple of H_kv, got ",
      q.sizes(), ", ", k.sizes(), ", ", v.sizes());
  const auto dtype = q.scalar_type();
  TORCH_CHECK((dtype == at::kFloat || dtype == at::kBFloat16) && k.scalar_type() == dtype &&
                  v.scalar_type() == dtype && q.device().is_cpu(),
              "[causal_attention] expected float32 or bfloat16 on the CPU, got ", dtype, ", ",
              k.scalar_type(), ", ", v.scalar_type(), " on ", q.device());
  TORCH_CHECK(!offsets.empty() && offsets.front() == 0 && offsets.back() == q.size(0) &&
                  std::is_sorted(offsets.begin(), offsets.end()),
              "[causal_attention] expected ascending offsets from 0 to ", q.size(0), ", got ", offsets);
}

// What all tasks of a call share: contiguous tensors, tokens one after the other.
class Call {
 public:
  Call(const at::Tensor& q, const at::Tensor& k, const std::vector<int64_t>& offsets)
      : heads_(q.size(1)), kv_heads_(k.size(1)), head_dim_(q.size(2)), tokens_(q.size(0)), offsets_(offsets) {
    type_ = q.scalar_type() == at::kFloat ? kernels::DType::kFloat32 : kernels::DType::kBFloat16;
    for (size_t b = 0; b + 1 < offsets.size(); ++b)
      longest_ = std::max(longest_, offsets[b + 1] - offsets[b]);
  }

  // Calls run(task, sequence, h) for each sequence and each h < heads.
  template <class Run>
  void for_each(int64_t heads, const Run& run) const {
    const int64_t sequences = static_cast<int64_t>(offsets_.size()) - 1;
    at::parallel_for(0, sequences * heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(attention_kernels().scratch_floats(longest_, head_dim_));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t sequence = i / heads;
        AttentionTask task{};
        task.type = type_;
        task.length = offsets_[sequence + 1] - offsets_[sequence];
        task.head_dim = head_dim_;
        task.q_stride = heads_ * head_dim_;
        task.kv_stride = kv_heads_ * head_dim_;
        task.lse_stride = tokens_;
        task.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim_)));
        task.scratch = scratch.data();
        if (task.length > 0) run(task, offsets_[sequence], i % heads);
      }
    });
  }

  int64_t group() const { return heads_ / kv_heads_; }
  const void* query(const at::Tensor& x, int64_t token, int64_t head) const {
    return kernels::offset(x.const_data_ptr(), type_, (token * heads_ + head) * head_dim_);
  }
  void* query(at::Tensor& x, int64_t token, int64_t head) const {
    return kernels::offset(x.mutable_data_ptr(), type_, (token * heads_ + head) * head_dim_);
  }
  const void* key(const at::Tensor& x, int64_t token, int64_t kv_head) const {
    return kernels::offset(x.const_data_ptr(), type_, (token * kv_heads_ + kv_head) * head_dim_);
  }
  void* key(at::Tensor& x, int64_t token, int64_t kv_head) const {
    return kernels::offset(x.mutable_data_ptr(), type_, (token * kv_heads_ + kv_head) * head_dim_);
  }
  float* lse(const at::Tensor& x, int64_t token, int64_t head) const {
    return static_cast<float*>(x.data_ptr()) + head * tokens_ + token;
  }

 private:
  kernels::DType type_;
  int64_t heads_, kv_heads_, head_dim_, tokens_, longest_ = 0;
  const std::vector<int64_t>& offsets_;
};

}  // namespace

const AttentionKernels& attention_kernels() {
  static const AttentionKernels chosen = attention_kernels(kernels::cpu_family().name);
  return chosen;
}

std::tuple<at::Tensor, at::Tensor> causal_attention_forward(const at::Tensor& q_in, const at::Tensor& k_in,
                                                            const at::Tensor& v_in,
                                                            const std::vector<int64_t>& offsets) {
  check(q_in, k_in, v_in, offsets);
  const at::Tensor q = q_in.contiguous(), k = k_in.contiguous(), v = v_in.contiguous();
  at::Tensor out = at::empty_like(q), lse = at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat));
  const Call call(q, k, offsets);
  const auto kernel = attention_kernels().forward;
  call.for_each(q.size(1), [&](AttentionTask& task, int64_t token, int64_t head) {
    task.num_heads = 1;
    task.q = call.query(q, token, head);
    task.k = call.key(k, token, head / call.group());
    task.v = call.key(v, token, head / call.group());
    task.o = call.query(out, token, head);
    task.lse = call.lse(lse, token, head);
    kernel(task);
  });
  return {out, lse};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> causal_attention_backward(
    const at::Tensor& d_out_in, const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in,
    const at::Tensor& out_in, const at::Tensor& lse, const std::vector<int64_t>& offsets) {
  check(q_in, k_in, v_in, offsets);
  TORCH_CHECK(d_out_in.sizes() == q_in.sizes() && d_out_in.scalar_type() == q_in.scalar_type(),
              "[causal_attention_backward] expected d_out like q ", q_in.sizes(), ", got ", d_out_in.sizes(),
              " ", d_out_in.scalar_type());
  const at::Tensor q = q_in.contiguous(), k = k_in.contiguous(), v = v_in.contiguous();
  const at::Tensor d_out = d_out_in.contiguous(), out = out_in.contiguous();
  at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
  const Call call(q, k, offsets);
  const auto kernel = attention_kernels().backward;
  call.for_each(k.size(1), [&](AttentionTask& task, int64_t token, int64_t kv_head) {
    const int64_t head = kv_head * call.group();
    task.num_heads = call.group();
    task.q = call.query(q, token, head);
    task.k = call.key(k, token, kv_head);
    task.v = call.key(v, token, kv_head);
    task.o = const_cast<void*>(call.query(out, token, head));  // backward only reads it
    task.lse = call.lse(lse, token, head);
    task.d_o = call.query(d_out, token, head);
    task.dq = call.query(dq, token, head);
    task.dk = call.key(dk, token, kv_head);
    task.dv = call.key(dv, token, kv_head);
    kernel(task);
  });
  return {dq, dk, dv};
}

}  // namespace motley
