// Causal attention of bf16 tokens by dot products of pairs (vdpbf16ps), in blocks of query rows.
// Probabilities and their gradients are rounded to bf16 before they are multiplied, as flash attention does;
// sums are fp32.
#pragma once

#include <immintrin.h>

#include "motley/nn/attention_kernels.h"
#include "motley/nn/attention_pair_products.h"

namespace motley {
namespace {

constexpr int64_t kBlockRows = 32;  // queries
constexpr int64_t kTileKeys = 32;   // keys that backward takes at once, so that all of it stays in L1

constexpr int64_t whole_tiles(int64_t keys) { return (keys + kTileKeys - 1) / kTileKeys * kTileKeys; }

// Keys or values of a head as right factors: pairs along the head (to sum over it), pairs of tokens (to sum
// over tokens). keys: L in whole tiles; pads are zero. Rows over keys are `stride` apart, which is no power
// of two: a column of them would fall into one set of the cache.
struct PairScratch {
  int64_t keys, stride, head_dim;
  int64_t words = 0;                                  // all parts together, 4 bytes each
  uint32_t *k_by_head, *v_by_head;                    // [hd / 2, stride]
  uint32_t *k_by_token, *v_by_token;                  // [keys / 2, hd]
  float *dk, *dv;                                     // [hd, stride]
  float *scores, *slopes;                             // forward [kBlockRows, keys], backward [.., kTileKeys]
  uint32_t *p_rows, *ds_rows;                         // bf16 [kBlockRows, keys], [kBlockRows, kTileKeys]
  uint32_t *p_pairs, *ds_pairs;                       // [kBlockRows / 2, kTileKeys]
  uint32_t *q_rows, *d_o_rows, *q_pairs, *d_o_pairs;  // bf16 [kBlockRows, hd]; [kBlockRows / 2, hd]
  float* out;                                         // [kBlockRows, hd]

  // With no memory it only counts.
  PairScratch(float* at, int64_t length, int64_t head_dim)
      : keys(whole_tiles(length)), stride(keys + 16), head_dim(head_dim) {
    const auto take = [&](int64_t count) {
      float* part = at == nullptr ? nullptr : at + words;
      words += (count + 15) / 16 * 16;
      return part;
    };
    const auto pairs = [&](int64_t count) { return reinterpret_cast<uint32_t*>(take(count)); };
    const int64_t packed = stride * head_dim / 2, block = kBlockRows * head_dim;
    k_by_head = pairs(packed), v_by_head = pairs(packed);
    k_by_token = pairs(packed), v_by_token = pairs(packed);
    dk = take(stride * head_dim), dv = take(stride * head_dim);
    scores = take(kBlockRows * stride), slopes = take(kBlockRows * kTileKeys);
    p_rows = pairs(kBlockRows * stride / 2), ds_rows = pairs(kBlockRows * kTileKeys / 2);
    p_pairs = pairs(kBlockRows * kTileKeys / 2), ds_pairs = pairs(kBlockRows * kTileKeys / 2);
    q_rows = pairs(block / 2), d_o_rows = pairs(block / 2);
    q_pairs = pairs(block / 2), d_o_pairs = pairs(block / 2);
    out = take(block);
  }
};

class PairAttention {
 public:
  static bool takes(const AttentionTask& task) {
    return task.type == kernels::DType::kBFloat16 && task.head_dim % 16 == 0;
  }

  static void forward(const AttentionTask& task) {
    const PairScratch at(task.scratch, task.length, task.head_dim);
    by_head(task, task.k, at, at.k_by_head);
    by_token(task, task.v, task.kv_stride, 0, task.length, at.keys, at.v_by_token);
    for (int64_t h = 0; h < task.num_heads; ++h) {
      for (int64_t first = 0; first < task.length; first += kBlockRows) {
        forward_block(task, at, h, first, least(kBlockRows, task.length - first));
      }
    }
  }

  // With P the softmax and D_i = <dO_i, O_i>:
  // dV = P^T dO, dS = P (dO V^T - D) scale, dQ = dS K, dK = dS^T Q
  static void backward(const AttentionTask& task) {
    const PairScratch at(task.scratch, task.length, task.head_dim);
    by_head(task, task.k, at, at.k_by_head);
    by_head(task, task.v, at, at.v_by_head);
    by_token(task, task.k, task.kv_stride, 0, task.length, at.keys, at.k_by_token);
    clear(at.dk, at.stride * task.head_dim);
    clear(at.dv, at.stride * task.head_dim);
    for (int64_t h = 0; h < task.num_heads; ++h) {
      for (int64_t first = 0; first < task.length; first += kBlockRows) {
        backward_block(task, at, h, first, least(kBlockRows, task.length - first));
      }
    }
    store_transposed(task, at.dk, at.stride, task.dk);
    store_transposed(task, at.dv, at.stride, task.dv);
  }

 private:
  using S = kernels::Simd<16>;
  using F = S::F;
  using I = S::I;

  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
  static const uint16_t* bits(const void* data) { return static_cast<const uint16_t*>(data); }
  static uint16_t* bits(void* data) { return static_cast<uint16_t*>(data); }
  static __m512i wide(const uint16_t* from) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static __m256i rounded(F v) { return (__m256i)_mm512_cvtneps_pbh((__m512)v); }
  static __m512i paired(__m256i low, __m256i high) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
  }
  static void clear(float* data, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) S::store(data + i, F{});
  }

  // [L, hd] bf16 to pairs along the head [hd / 2, stride].
  static void by_head(const AttentionTask& task, const void* from, const PairScratch& at, uint32_t* to) {
    const int64_t pairs = task.head_dim / 2;
    for (int64_t t = 0; t < at.keys; ++t) {
      const uint16_t* row = bits(from) + t * task.kv_stride;
      for (int64_t j = 0; j < pairs; ++j) {
        uint32_t pair = 0;
        if (t < task.length) __builtin_memcpy(&pair, row + 2 * j, sizeof pair);
        to[j * at.stride + t] = pair;
      }
    }
  }
  // Tokens first .. first + count of [.., hd] bf16 to pairs of tokens [tokens / 2, hd].
  static void by_token(const AttentionTask& task, const void* from, int64_t stride, int64_t first,
                       int64_t count, int64_t tokens, uint32_t* to) {
    for (int64_t t = 0; t < tokens; t += 2) {
      const uint16_t* row = bits(from) + (first + t) * stride;
      for (int64_t i = 0; i < task.head_dim; i += 16) {
        __m512i pair = _mm512_setzero_si512();
        if (t < count) pair = wide(row + i);
        if (t + 1 < count) pair = _mm512_or_si512(pair, _mm512_slli_epi32(wide(row + stride + i), 16));
        _mm512_storeu_si512(to + t / 2 * task.head_dim + i, pair);
      }
    }
  }
  // A block's rows one after the other; rows past the last real one are zero.
  static void copy_rows(const AttentionTask& task, const void* from, int64_t first, int64_t rows,
                        uint32_t* to) {
    const int64_t bytes = task.head_dim * 2;
    for (int64_t i = 0; i < kBlockRows; ++i) {
      void* row = bits(to) + i * task.head_dim;
      if (i < rows) {
        __builtin_memcpy(row, bits(from) + (first + i) * task.q_stride, static_cast<size_t>(bytes));
      } else {
        __builtin_memset(row, 0, static_cast<size_t>(bytes));
      }
    }
  }
  static void store_rows(const AttentionTask& task, const float* from, int64_t first, int64_t rows,
                         void* to) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t d = 0; d < task.head_dim; d += 16) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits(to) + (first + i) * task.q_stride + d),
                            rounded(S::load(from + i * task.head_dim + d)));
      }
    }
  }
  // [hd, stride] fp32 to [L, hd] bf16.
  static void store_transposed(const AttentionTask& task, const float* from, int64_t stride, void* to) {
    I step{};
    for (int i = 0; i < 16; ++i) step[i] = i;
    step *= static_cast<int32_t>(stride);
    for (int64_t t = 0; t < task.length; ++t) {
      for (int64_t d = 0; d < task.head_dim; d += 16) {
        const __m512 column = _mm512_i32gather_ps((__m512i)step, from + d * stride + t, 4);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits(to) + t * task.kv_stride + d),
                            rounded((F)column));
      }
    }
  }

  static const void* head(const AttentionTask& task, const void* data, int64_t h) {
    return bits(data) + h * task.head_dim;
  }
  static void* head(const AttentionTask& task, void* data, int64_t h) {
    return bits(data) + h * task.head_dim;
  }

  // Vector n .. n + 15 of a row whose first `visible` elements count.
  static __mmask16 visible_lanes(int64_t n, int64_t visible) {
    const int64_t count = visible - n;
    return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
  }
  static F masked(__mmask16 mask, F v) { return (F)_mm512_maskz_mov_ps(mask, (__m512)v); }
  // exp() saturates; a power that is not finite must not vanish in it.
  static F exponential(F power) { return S::exp(power) + (power - power); }

  static void forward_block(const AttentionTask& task, const PairScratch& at, int64_t h, int64_t first,
                            int64_t rows) {
    const int64_t hd = task.head_dim, width = whole_tiles(first + rows);
    copy_rows(task, head(task, task.q, h), first, rows, at.q_rows);
    multiply_pairs(kBlockRows, width, hd / 2, {at.q_rows, hd / 2, 1}, at.k_by_head, at.stride, at.scores,
                   at.stride, false);
    float inverse[kBlockRows];
    for (int64_t i = 0; i < kBlockRows; ++i) {
      const float* row = at.scores + i * at.stride;
      uint16_t* p_row = bits(at.p_rows) + i * at.stride;
      const int64_t visible = i < rows ? first + i + 1 : 0;
      __m512 most = _mm512_set1_ps(row[0]);
      for (int64_t n = 0; n < visible; n += 16) {
        // The second operand comes through where one is not a number.
        most = _mm512_mask_max_ps(most, visible_lanes(n, visible), most, _mm512_loadu_ps(row + n));
      }
      const float shift = visible > 0 ? task.scale * _mm512_reduce_max_ps(most) : 0;
      F sum{};
      for (int64_t n = 0; n < width; n += 16) {
        const F p = masked(visible_lanes(n, visible), exponential(S::load(row + n) * task.scale - shift));
        sum += p;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p_row + n), rounded(p));
      }
      const float total = S::sum(sum);
      inverse[i] = visible > 0 ? 1 / total : 0;
      if (visible > 0) task.lse[h * task.lse_stride + first + i] = shift + __builtin_logf(total);
    }
    multiply_pairs(kBlockRows, hd, width / 2, {at.p_rows, at.stride / 2, 1}, at.v_by_token, hd, at.out, hd,
                   false);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t d = 0; d < hd; d += 16) {
        S::store(at.out + i * hd + d, S::load(at.out + i * hd + d) * inverse[i]);
      }
    }
    store_rows(task, at.out, first, rows, head(task, task.o, h));
  }

  struct RowFacts {
    float lse, d;
    int64_t visible;
  };

  static void backward_block(const AttentionTask& task, const PairScratch& at, int64_t h, int64_t first,
                             int64_t rows) {
    const int64_t hd = task.head_dim;
    const void *q = head(task, task.q, h), *d_o = head(task, task.d_o, h), *o = head(task, task.o, h);
    copy_rows(task, q, first, rows, at.q_rows);
    copy_rows(task, d_o, first, rows, at.d_o_rows);
    by_token(task, q, task.q_stride, first, rows, kBlockRows, at.q_pairs);
    by_token(task, d_o, task.q_stride, first, rows, kBlockRows, at.d_o_pairs);
    RowFacts facts[kBlockRows];
    for (int64_t i = 0; i < kBlockRows; ++i) {
      F dot{};
      for (int64_t d = 0; i < rows && d < hd; d += 16) {
        const int64_t place = (first + i) * task.q_stride + d;
        dot += S::load(kernels::DType::kBFloat16, o, place) * S::load(kernels::DType::kBFloat16, d_o, place);
      }
      facts[i] = {i < rows ? task.lse[h * task.lse_stride + first + i] : 0, S::sum(dot),
                  i < rows ? first + i + 1 : 0};
    }
    clear(at.out, kBlockRows * hd);
    for (int64_t key = 0; key < first + rows; key += kTileKeys) {
      multiply_pairs(kBlockRows, kTileKeys, hd / 2, {at.q_rows, hd / 2, 1}, at.k_by_head + key, at.stride,
                     at.scores, kTileKeys, false);
      multiply_pairs(kBlockRows, kTileKeys, hd / 2, {at.d_o_rows, hd / 2, 1}, at.v_by_head + key, at.stride,
                     at.slopes, kTileKeys, false);
      probabilities_and_slopes(task, at, facts, key);
      // Transposed: rows are the head's elements, so that the pairs just made are the right factors.
      multiply_pairs(hd, kTileKeys, kBlockRows / 2, {at.d_o_pairs, 1, hd}, at.p_pairs, kTileKeys, at.dv + key,
                     at.stride, true);
      multiply_pairs(hd, kTileKeys, kBlockRows / 2, {at.q_pairs, 1, hd}, at.ds_pairs, kTileKeys, at.dk + key,
                     at.stride, true);
      multiply_pairs(kBlockRows, hd, kTileKeys / 2, {at.ds_rows, kTileKeys / 2, 1},
                     at.k_by_token + key / 2 * hd, hd, at.out, hd, true);
    }
    store_rows(task, at.out, first, rows, head(task, task.dq, h));
  }

  // From scores and dO V^T of a tile to P and dS: pairs of rows of both, rows of dS.
  static void probabilities_and_slopes(const AttentionTask& task, const PairScratch& at,
                                       const RowFacts* facts, int64_t key) {
    for (int64_t i = 0; i < kBlockRows; i += 2) {
      for (int64_t n = 0; n < kTileKeys; n += 16) {
        __m256i p[2], ds[2];
        for (int64_t r = 0; r < 2; ++r) {
          const RowFacts& row = facts[i + r];
          const int64_t place = (i + r) * kTileKeys + n;
          const F probability = masked(visible_lanes(key + n, row.visible),
                                       exponential(S::load(at.scores + place) * task.scale - row.lse));
          p[r] = rounded(probability);
          ds[r] = rounded(probability * (S::load(at.slopes + place) - row.d) * task.scale);
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits(at.ds_rows) + place), ds[r]);
        }
        _mm512_storeu_si512(at.p_pairs + i / 2 * kTileKeys + n, paired(p[0], p[1]));
        _mm512_storeu_si512(at.ds_pairs + i / 2 * kTileKeys + n, paired(ds[0], ds[1]));
      }
    }
  }
};

}  // namespace
}  // namespace motley
