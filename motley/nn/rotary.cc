#include "motley/nn/rotary.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cmath>

#include "motley/nn/gpu.h"
#include "motley/nn/row_math.h"

namespace motley {
namespace {

constexpr const char* kName = "rotary";

}  // namespace

RotaryTable::RotaryTable(int64_t max_positions, int64_t head_dim, double theta) {
  TORCH_CHECK(max_positions > 0 && head_dim > 0 && head_dim % 2 == 0 && theta > 0, "[", kName,
              "] expected positions, an even head_dim and theta > 0, got ", max_positions, ", ", head_dim,
              ", ", theta);
  table_ = at::empty({max_positions, head_dim}, at::kFloat);
  const int64_t half = head_dim / 2;
  float* at = table_.mutable_data_ptr<float>();
  for (int64_t position = 0; position < max_positions; ++position, at += head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = position * std::pow(theta, -2.0 * i / head_dim);
      at[i] = static_cast<float>(std::cos(angle));
      at[i + half] = static_cast<float>(std::sin(angle));
    }
  }
}

at::Tensor RotaryTable::rotate(const at::Tensor& x, const at::Tensor& positions) const {
  return rotary(x, positions, table_);
}

at::Tensor rotary_forward(const at::Tensor& x_in, const at::Tensor& positions_in, const at::Tensor& table,
                          bool inverse) {
  TORCH_CHECK(x_in.dim() == 3 && x_in.size(2) == table.size(1), "[", kName, "] expected x [T, H, ",
              table.size(1), "], got ", x_in.sizes());
  TORCH_CHECK(positions_in.dim() == 1 && positions_in.size(0) == x_in.size(0) &&
                  positions_in.scalar_type() == at::kLong,
              "[", kName, "] expected positions [", x_in.size(0), "] int64, got ", positions_in.sizes(), " ",
              positions_in.scalar_type());
  if (!x_in.is_cpu()) return gpu::rotary(x_in, positions_in, table, inverse);
  const at::Tensor x = x_in.contiguous(), positions = positions_in.contiguous();
  const int64_t heads = x.size(1), head_dim = x.size(2), limit = table.size(0);
  at::Tensor y = at::empty_like(x);
  const int64_t* position = positions.const_data_ptr<int64_t>();
  const float* angles = table.const_data_ptr<float>();
  const float sign = inverse ? -1.0f : 1.0f;
  const auto type = nn_detail::row_type(kName, x);
  const auto& cpu = kernels::cpu_kernels();
  const void* from = x.const_data_ptr();
  void* to = y.mutable_data_ptr();
  at::parallel_for(0, x.size(0), nn_detail::kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      TORCH_CHECK(position[token] >= 0 && position[token] < limit, "[", kName, "] expected positions in [0, ",
                  limit, "), got ", position[token]);
      const float* cosine = angles + position[token] * head_dim;
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t at = (token * heads + head) * head_dim;
        cpu.rotate(type, kernels::offset(from, type, at), cosine, cosine + head_dim / 2, sign, head_dim / 2,
                   kernels::offset(to, type, at));
      }
    }
  });
  return y;
}

}  // namespace motley
