// Causal attention in blocks of query rows, see attention_kernels.h. The exact softmax of a block's rows
// over all keys up to them stands in scratch; blocks are small, so that it stays in the cache.
#pragma once

#include "motley/nn/attention_kernels.h"
#include "motley/nn/attention_tile.h"

namespace motley {
namespace {

constexpr int64_t kBlockRows = 24;  // a multiple of kRowUnit
constexpr int64_t kMaxLanes = 64;   // of the widest tile of any family

constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// The parts of a task's scratch. Widths are padded, and pads are zero, so that products need no edges.
struct AttentionScratch {
  int64_t width;           // hd in whole vectors of any family
  int64_t stride;          // of rows over keys
  int64_t floats = 0;      // all parts together
  float *kt, *vt;          // [hd, stride]: K and V transposed
  float *k, *v;            // [L + pad, width]
  float *dk, *dv;          // [L + pad, width]
  float *scores, *slopes;  // [kBlockRows, stride]
  float *q, *d_o, *out;    // [kBlockRows, width]

  // With no memory it only counts.
  AttentionScratch(float* at, int64_t length, int64_t head_dim)
      : width(round_up(head_dim, 16)), stride(round_up(length + kBlockRows, kMaxLanes) + kRowUnit) {
    const auto take = [&](int64_t count) {
      float* part = at == nullptr ? nullptr : at + floats;
      floats += round_up(count, 16);
      return part;
    };
    const int64_t rows = length + kBlockRows + kRowUnit;
    kt = take(head_dim * stride), vt = take(head_dim * stride);
    k = take(rows * width), v = take(rows * width), dk = take(rows * width), dv = take(rows * width);
    scores = take(kBlockRows * stride), slopes = take(kBlockRows * stride);
    q = take(kBlockRows * width), d_o = take(kBlockRows * width), out = take(kBlockRows * width);
  }
};

template <int W>
struct Attention {
  using S = kernels::Simd<W>;
  using F = typename S::F;
  using I = typename S::I;
  using T = Tiles<W>;

  // Rows of `count` tokens to fp32 [rows, width]; rows past count are zero.
  static void unpack(const AttentionTask& task, const void* from, int64_t stride, int64_t first,
                     int64_t count, int64_t rows, float* to, int64_t width) {
    for (int64_t t = 0; t < rows; ++t, to += width) {
      for (int64_t i = 0; i < width; i += W) {
        const int64_t left = t < count ? task.head_dim - i : 0;
        S::store(to + i, left > 0 ? S::load_some(task.type, from, (first + t) * stride + i, left) : F{});
      }
    }
  }
  static void pack(const AttentionTask& task, const float* from, int64_t width, int64_t first, int64_t count,
                   void* to, int64_t stride) {
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t i = 0; i < task.head_dim; i += W) {
        S::store_some(task.type, to, (first + t) * stride + i, task.head_dim - i,
                      S::load(from + t * width + i));
      }
    }
  }
  // [L, width] to [hd, stride], zeros behind L.
  static void transpose(const float* from, int64_t width, int64_t length, int64_t head_dim, float* to,
                        int64_t stride) {
    for (int64_t i = 0; i < head_dim; ++i) {
      float* row = to + i * stride;
      for (int64_t t = 0; t < length; ++t) row[t] = from[t * width + i];
      for (int64_t t = length; t < stride; ++t) row[t] = 0;
    }
  }

  static I lane_index() {
    I index{};
    for (int i = 0; i < W; ++i) index[i] = i;
    return index;
  }
  // Vector n .. n + W - 1 of a row whose first `visible` elements count.
  static I visible_lanes(int64_t n, int64_t visible) {
    return lane_index() < static_cast<int32_t>(visible - n < W ? visible - n : W);
  }

  // exp(scale * score - shift) of the visible keys, zeros behind them up to `end`; returns the sum.
  static float exponentials(float* row, int64_t visible, int64_t end, float scale, float shift) {
    F sum{};
    int64_t n = 0;
    for (; n < visible; n += W) {
      const F power = S::load(row + n) * scale - shift;
      // exp() saturates; a power that is not finite must not vanish in it.
      F p = S::exp(power) + (power - power);
      if (n + W > visible) p = S::select(visible_lanes(n, visible), p, F{});
      S::store(row + n, p);
      sum += p;
    }
    for (; n < end; n += W) S::store(row + n, F{});
    return S::sum(sum);
  }

  static float largest(const float* row, int64_t visible) {
    F most = S::set(row[0]);
    for (int64_t n = 0; n < visible; n += W) {
      const F value = S::load(row + n);
      most = S::max(most, n + W > visible ? S::select(visible_lanes(n, visible), value, most) : value);
    }
    float result = most[0];
    for (int i = 1; i < W; ++i) result = result > most[i] ? result : most[i];
    return result;
  }

  static const void* head(const AttentionTask& task, const void* data, int64_t h) {
    return static_cast<const char*>(data) + h * task.head_dim * kernels::size_of(task.type);
  }
  static void* head(const AttentionTask& task, void* data, int64_t h) {
    return static_cast<char*>(data) + h * task.head_dim * kernels::size_of(task.type);
  }

  // Of the block of rows first ..: keys that any of its rows sees, in whole tiles.
  struct Block {
    int64_t first, rows;  // real rows
    int64_t keys, width;  // keys seen; the same in whole widest tiles
    Block(int64_t first, int64_t length)
        : first(first),
          rows(length - first < kBlockRows ? length - first : kBlockRows),
          keys(first + rows),
          width(round_up(keys, kMaxLanes)) {}
    // A row past the last real one sees nothing.
    int64_t visible(int64_t row) const { return row < rows ? first + row + 1 : 0; }
  };

  static void forward(const AttentionTask& task) {
    const AttentionScratch at(task.scratch, task.length, task.head_dim);
    const int64_t length = task.length, hd = task.head_dim;
    unpack(task, task.k, task.kv_stride, 0, length, length, at.k, at.width);
    unpack(task, task.v, task.kv_stride, 0, length, length, at.v, at.width);
    transpose(at.k, at.width, length, hd, at.kt, at.stride);
    for (int64_t h = 0; h < task.num_heads; ++h) {
      for (int64_t first = 0; first < length; first += kBlockRows) {
        const Block block(first, length);
        unpack(task, head(task, task.q, h), task.q_stride, first, block.rows, kBlockRows, at.q, at.width);
        T::multiply(kBlockRows, block.width, hd, {at.q, at.width, 1}, at.kt, at.stride, at.scores, at.stride,
                    false);
        float inverse[kBlockRows];
        for (int64_t i = 0; i < kBlockRows; ++i) {
          float* row = at.scores + i * at.stride;
          const int64_t visible = block.visible(i);
          const float shift = visible > 0 ? task.scale * largest(row, visible) : 0;
          const float sum = exponentials(row, visible, block.width, task.scale, shift);
          inverse[i] = visible > 0 ? 1 / sum : 0;
          if (visible > 0) task.lse[h * task.lse_stride + first + i] = shift + __builtin_logf(sum);
        }
        T::multiply(kBlockRows, at.width, block.keys, {at.scores, at.stride, 1}, at.v, at.width, at.out,
                    at.width, false);
        for (int64_t i = 0; i < block.rows; ++i) {
          float* row = at.out + i * at.width;
          for (int64_t n = 0; n < at.width; n += W) S::store(row + n, S::load(row + n) * inverse[i]);
        }
        pack(task, at.out, at.width, first, block.rows, head(task, task.o, h), task.q_stride);
      }
    }
  }

  // With P the softmax and D_i = <dO_i, O_i>:
  // dV = P^T dO, dS = P (dO V^T - D) scale, dQ = dS K, dK = dS^T Q
  static void backward(const AttentionTask& task) {
    const AttentionScratch at(task.scratch, task.length, task.head_dim);
    const int64_t length = task.length, hd = task.head_dim;
    unpack(task, task.k, task.kv_stride, 0, length, length, at.k, at.width);
    unpack(task, task.v, task.kv_stride, 0, length, length, at.v, at.width);
    transpose(at.k, at.width, length, hd, at.kt, at.stride);
    transpose(at.v, at.width, length, hd, at.vt, at.stride);
    const int64_t padded = (length + kBlockRows + kRowUnit) * at.width;
    for (int64_t n = 0; n < padded; ++n) at.dk[n] = at.dv[n] = 0;
    for (int64_t h = 0; h < task.num_heads; ++h) {
      for (int64_t first = 0; first < length; first += kBlockRows)
        backward_block(task, at, h, Block(first, length));
    }
    pack(task, at.dk, at.width, 0, length, task.dk, task.kv_stride);
    pack(task, at.dv, at.width, 0, length, task.dv, task.kv_stride);
  }

  static void backward_block(const AttentionTask& task, const AttentionScratch& at, int64_t h,
                             const Block& block) {
    const int64_t hd = task.head_dim, first = block.first;
    const auto load_rows = [&](const void* from, float* to) {
      unpack(task, head(task, from, h), task.q_stride, first, block.rows, kBlockRows, to, at.width);
    };
    load_rows(task.o, at.out);
    load_rows(task.d_o, at.d_o);
    load_rows(task.q, at.q);
    T::multiply(kBlockRows, block.width, hd, {at.q, at.width, 1}, at.kt, at.stride, at.scores, at.stride,
                false);
    T::multiply(kBlockRows, block.width, hd, {at.d_o, at.width, 1}, at.vt, at.stride, at.slopes, at.stride,
                false);
    for (int64_t i = 0; i < kBlockRows; ++i) {
      F dot{};
      for (int64_t n = 0; n < at.width; n += W) {
        dot += S::load(at.out + i * at.width + n) * S::load(at.d_o + i * at.width + n);
      }
      const float d = S::sum(dot);
      float *p = at.scores + i * at.stride, *ds = at.slopes + i * at.stride;
      const int64_t visible = block.visible(i);
      const float lse = visible > 0 ? task.lse[h * task.lse_stride + first + i] : 0;
      exponentials(p, visible, block.width, task.scale, lse);
      for (int64_t n = 0; n < block.width; n += W) {
        S::store(ds + n, S::load(p + n) * (S::load(ds + n) - d) * task.scale);
      }
      for (int64_t n = block.width; n < block.width + kRowUnit; ++n) p[n] = ds[n] = 0;
    }
    const int64_t keys = round_up(block.keys, kRowUnit);
    T::multiply(keys, at.width, kBlockRows, {at.scores, 1, at.stride}, at.d_o, at.width, at.dv, at.width,
                true);
    T::multiply(keys, at.width, kBlockRows, {at.slopes, 1, at.stride}, at.q, at.width, at.dk, at.width, true);
    T::multiply(kBlockRows, at.width, block.keys, {at.slopes, at.stride, 1}, at.k, at.width, at.out, at.width,
                false);
    pack(task, at.out, at.width, first, block.rows, head(task, task.dq, h), task.q_stride);
  }

  static int64_t scratch_floats(int64_t length, int64_t head_dim) {
    return AttentionScratch(nullptr, length, head_dim).floats;
  }

  static AttentionKernels kernels() { return {forward, backward, scratch_floats}; }
};

}  // namespace
}  // namespace motley
